"""What a forward pass keeps in the network for the next one: a network that has run is pruned as a fresh one is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget, build_graph

EXAMPLE = torch.randn(1, 20, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Positions(nn.Module):
    """A table of positions, computed when it is missing or too short."""

    def __init__(self, width: int, rows: int, held_in: str) -> None:
        super().__init__()
        self.width, self.held_in, self.cache = width, held_in, {}
        self.register_buffer("table", None, persistent=False)
        if rows:
            self.table = self.made(rows)

    def made(self, rows: int) -> Tensor:
        return torch.arange(rows, dtype=torch.float64)[:, None] / torch.arange(1, self.width + 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.held_in == "dict":
            if "table" not in self.cache:
                self.cache["table"] = self.made(500)
            return x + self.cache["table"][: x.shape[1]]
        if (self.held_in == "buffer" and self.table is None) or len(self.table) < x.shape[1]:
            self.table = self.made(x.shape[1])
        return x + self.table[: x.shape[1]]


class Fixed(nn.Module):
    """A table that longer inputs are too long for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(2000, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]]


class Rotary(nn.Module):
    """Tables of angles, made anew from frequencies where more of them are needed than ever before."""

    def __init__(self, rows: int, *, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(1, 13) / 20.0, persistent=persistent)
        self.make(rows)

    def make(self, rows: int) -> None:
        self.rows = rows
        angles = torch.arange(rows)[:, None] * self.frequencies
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.rows:
            self.make(x.shape[1])
        return x * self.cos[: x.shape[1]] + self.sin[: x.shape[1]]


class Fused(nn.Module):
    """An identity kernel is made for the first input and kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.inner = width, nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "identity"):
            self.identity = torch.eye(self.width, dtype=torch.float64)
        return nn.functional.linear(x, self.inner.weight + self.identity, self.inner.bias)


class State(nn.Module):
    """The last frame of one call stands before the first one of the next."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        before = x.new_zeros(len(x), 1, x.shape[2]) if self.last is None else self.last
        self.last = x[:, -1:].detach()
        return x + torch.cat([before, x[:, :-1]], 1)


MIDDLES = {
    "made when missing": lambda: Positions(12, 0, "buffer"),
    "made anew when too short": lambda: Positions(12, 30, "constructor"),
    "held in a dict": lambda: Positions(12, 0, "dict"),
    "made anew when far too short": lambda: Positions(12, 2000, "constructor"),
    "never made anew": lambda: Fixed(12),
    "outgrown": lambda: Rotary(30, persistent=True),
    "outgrown, not in the state dict": lambda: Rotary(30, persistent=False),
    "fused": lambda: Fused(12),
    "state": State,
}
WHOLE = {"made when missing", "made anew when too short", "made anew when far too short", "held in a dict"}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    first, *others = nn.Linear(9, 12), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 9)
    return nn.Sequential(first, MIDDLES[name](), *others).double().eval()


@pytest.mark.parametrize("name", MIDDLES)
def test_a_network_that_has_run_is_pruned_as_a_fresh_one(name: str, tmp_path: Path) -> None:
    fresh, warm = network(name), network(name)
    warm(EXAMPLE)
    graphs = [build_graph(model, EXAMPLE) for model in (fresh, warm)]
    assert [[group.name for group in graph.groups] for graph in graphs] == [
        ["2.weight[0]"] if name in WHOLE else ["0.weight[0]", "2.weight[0]"]
    ] * 2

    result = prunegraph.prune(warm, EXAMPLE, criterion="random", budget=Budget(ratio=0.5))
    prunegraph.save(result, tmp_path / "pruned")
    loaded = prunegraph.load(network(name), tmp_path / "pruned")

    longer = torch.cat([EXAMPLE] * 4, 1)
    warm(longer)
    assert dict(result.report.unproved) == {}
    if name == "state":
        result.model[1].last = None
    assert torch.equal(loaded(longer), result.model(longer))
    assert torch.equal(loaded(EXAMPLE).isnan(), warm(EXAMPLE).isnan())


def test_the_network_keeps_its_caches() -> None:
    model = network("made when missing")
    model(EXAMPLE)
    table = model[1].table
    build_graph(model, EXAMPLE)
    assert model[1].table is table


class Bias(nn.Module):
    """Attention with a bias that is kept for eval mode, and dropped when the mode is set, which returns nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)
        self.table = nn.Parameter(torch.randn(8, 5))
        self.register_buffer("places", torch.arange(7) % 5, persistent=False)
        self.cache: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.cache = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) * self._bias(str(x.device)).T)

    def _bias(self, key: str) -> Tensor:
        if self.training:
            return self.table[:, self.places]
        if key not in self.cache:
            self.cache[key] = self.table[:, self.places].detach()
        return self.cache[key]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("has_run", [False, True])
def test_a_cache_that_setting_the_mode_drops(has_run: bool, training: bool) -> None:
    model, example = Bias(), torch.randn(2, 7, 3)
    if has_run:
        model.eval()
        model(example)
    if training:
        model.train()
    result = prunegraph.prune(model, example, criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert list(result.plan.kept) == ["table[0]"]  # and no place of the index, which only training reads
    assert not result.report.unproved
    assert result.model.table.shape == (4, 5)
    assert "runs in training mode" in {check.detail for check in result.report.verification.checks}
    assert result.model(example).shape == (2, 7, 2)
    result.model.eval()
    masks = {name: torch.isin(torch.arange(8), torch.tensor(kept)).float() for name, kept in result.plan.kept.items()}
    model.eval()
    expected = prunegraph.MaskedProgram(prunegraph.build_graph(model, example))(masks, example)
    torch.testing.assert_close(result.model(example), expected)


class PlacesOfBias(nn.Module):
    """Attention with a bias looked up by place; in eval mode the places are read in the first run only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.last = nn.Linear(3, 24), nn.Linear(8, 2)
        self.table = nn.Parameter(torch.randn(2, 9))
        self.register_buffer("places", torch.arange(49).reshape(7, 7) % 9, persistent=False)
        self.cache: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4)
        if self.training or self.cache is None:
            self.cache = self.table[:, self.places]
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.cache)
        return self.last(attended.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("has_run", [False, True])
def test_places_that_only_training_reads_are_no_channels(has_run: bool) -> None:
    model, example = PlacesOfBias().eval(), torch.randn(2, 7, 3)
    if has_run:
        model(example)
    assert [group.name for group in build_graph(model, example).groups] == ["qkv.weight[0]"]


class CountedRotary(nn.Module):
    """Rotates the first channels by a table, of which a counter says how many rows earlier runs filled."""

    def __init__(self, counter: str, turned: int = 8) -> None:
        super().__init__()
        self.counter = counter
        self.rates = nn.Parameter(1e4 ** (-torch.arange(0, turned, 2) / turned), requires_grad=False)
        self.register_buffer("table", torch.zeros(64, turned), persistent=False)
        self.register_buffer("rows", torch.tensor(0), persistent=False)
        self.filled = 0

    def angles(self, length: int) -> Tensor:
        if length <= (self.filled if self.counter == "number" else self.rows.item()):
            return self.table[:length]
        made = torch.outer(torch.arange(length).float(), self.rates).repeat_interleave(2, -1)
        self.table[:length] = made.detach()
        self.filled = length
        self.rows.fill_(length)
        return made

    def forward(self, x: Tensor) -> Tensor:
        angles = self.angles(x.shape[1])
        rest, x = x[..., angles.shape[-1] :], x[..., : angles.shape[-1]]
        turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
        return torch.cat((x * angles.cos() + turned * angles.sin(), rest), -1)


class RotaryAttention(nn.Module):
    """Attention by keys that are their own queries."""

    def __init__(self, counter: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.keys, self.values, self.rotary = nn.Linear(3, 24), nn.Linear(3, 2), CountedRotary(counter)

    def forward(self, x: Tensor) -> Tensor:
        keys = self.rotary(self.keys(x))
        return (keys @ keys.transpose(1, 2)).softmax(-1) @ self.values(x)


@pytest.mark.parametrize("counter", ["number", "buffer"])
@pytest.mark.parametrize("rows", [9, 60], ids=["for the example", "for much more"])
def test_a_table_that_a_counter_says_is_filled(counter: str, rows: int) -> None:
    example, longer = torch.randn(1, 9, 3), torch.randn(1, 30, 3)
    fresh, used = RotaryAttention(counter).eval(), RotaryAttention(counter).eval()
    used(torch.randn(1, rows, 3))
    groups = [{group.name: group.width for group in build_graph(model, example).groups} for model in (fresh, used)]
    assert groups[0] == groups[1] == {"keys.weight[0]": 4, "keys.weight[0]#2": 16}
    results = [prunegraph.prune(m, example, criterion="l1", budget=Budget(ratio=0.5)) for m in (fresh, used)]
    assert results[1].model.rotary.table.shape == (64, 4)
    assert results[1].model.keys.out_features == 12
    for signal in (example, longer, example):
        torch.testing.assert_close(results[0].model(signal), results[1].model(signal))


class HeadwiseRotary(nn.Module):
    """A rotary table of one head's width, made of a parameter that later runs do not read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.first, self.last = heads, nn.Linear(5, width), nn.Linear(width, 5)
        self.rates = nn.Parameter(torch.rand(width // heads // 2), requires_grad=False)
        self.register_buffer("table", None, persistent=False)

    def angles(self, length: int) -> Tensor:
        if self.table is None or self.table.shape[0] < length:
            made = torch.outer(torch.arange(length).type(self.rates.dtype), self.rates).repeat_interleave(2, -1)
            self.register_buffer("table", made.detach(), persistent=False)
        return self.table[:length].detach()

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        y = self.first(x).reshape(batch, length, self.heads, -1).transpose(1, 2)
        y = y * self.angles(length).cos()
        return self.last(y.transpose(1, 2).reshape(batch, length, -1))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_training_run_is_without_tables_too(heads: int) -> None:
    fresh, used = HeadwiseRotary(32, heads).eval(), HeadwiseRotary(32, heads).eval()
    example = torch.randn(2, 7, 5)
    used(example)
    groups = [{group.name: group.width for group in build_graph(model, example).groups} for model in (fresh, used)]
    assert groups[0] == groups[1] == {"first.weight[0]": 16 // heads}
    results = [prunegraph.prune(m, example, criterion="l1", budget=Budget(ratio=0.5)) for m in (fresh, used)]
    for signal in (example, torch.randn(1, 20, 5)):
        torch.testing.assert_close(results[0].model(signal), results[1].model(signal))


class OfOneLength(nn.Module):
    """Keeps what it computes from a weight, or from a buffer, for inputs of the last length."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.first, self.last = way, nn.Linear(5, 16), nn.Linear(16, 5)
        self.rates = nn.Parameter(torch.rand(16), requires_grad=False)
        self.length: int | None = None
        self.held: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.length:
            table = torch.outer(torch.arange(x.shape[1]).type(self.rates.dtype), self.rates).cos()
            self.held, self.length = {"tensor": table, "list": [table, table]}[self.way], x.shape[1]
        table = self.held if self.way == "tensor" else self.held[1]
        return self.last(self.first(x).relu() * table)


@pytest.mark.parametrize("way", ["tensor", "list"])
def test_what_was_kept_for_another_length_is_made_anew(way: str) -> None:
    fresh, used = OfOneLength(way).eval(), OfOneLength(way).eval()
    example, other = torch.randn(1, 7, 5), torch.randn(1, 20, 5)
    used(other)
    held = used.held
    results = [prunegraph.prune(m, example, criterion="l1", budget=Budget(ratio=0.5)) for m in (fresh, used)]
    assert used.held is held
    assert used.length == 20
    for signal in (other, example, other):
        torch.testing.assert_close(results[0].model(signal), results[1].model(signal))


class Streaming(nn.Module):
    """Goes on where the last call ended, unless the batch is another one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.layer, self.last = nn.Conv1d(1, 12, 1), nn.Conv1d(12, 10, 3), nn.Conv1d(10, 1, 1)
        self.past: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.past is None or len(self.past) != len(x):
            self.past = x.new_zeros(len(x), x.shape[1], 2)
        x = torch.cat([self.past, x], -1)
        self.past = x[..., -2:].detach()
        return self.last(self.layer(x).relu())


def test_a_stream_of_another_batch_begins_with_nothing() -> None:
    fresh, used = Streaming().eval(), Streaming().eval()
    example = torch.randn(2, 1, 30)
    used(torch.randn(1, 1, 30))
    results = [prunegraph.prune(m, example, criterion="l1", budget=Budget(ratio=0.5)) for m in (fresh, used)]
    for signal in (example, example, torch.randn(1, 1, 30)):
        torch.testing.assert_close(results[0].model(signal), results[1].model(signal))


class Listed(nn.Module):
    """Reads dilations out of a buffer."""

    def __init__(self, read: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.read = read
        self.register_buffer("dilations", torch.tensor([1, 2, 4]))
        self.first, self.layer, self.last = nn.Conv1d(1, 12, 3), nn.Conv1d(12, 12, 3), nn.Conv1d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for dilation in map(int, self.read(self.dilations)):
            x = x + nn.functional.conv1d(x, self.layer.weight, self.layer.bias, 1, dilation, dilation).relu()
        return self.last(x)


@pytest.mark.parametrize("read", [Tensor.tolist, Tensor.numpy, tuple], ids=["tolist", "numpy", "tuple"])
def test_numbers_that_are_read_by_their_places_are_no_channels(read: Callable[[Tensor], Any]) -> None:
    result = prunegraph.prune(Listed(read).eval(), torch.randn(1, 1, 40), criterion="random", budget=Budget(ratio=0.5))
    assert result.report.widths == {"first.weight[0]": (12, 6)}
