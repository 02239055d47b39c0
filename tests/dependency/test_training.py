"""What only training reads: it shrinks with the rest, and where that cannot be, the rest stays."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph import Budget, DependencyGraph, UnsupportedModelError, apply, build_graph, verify

EXAMPLE = torch.randn(2, 1, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Trained(nn.Module):
    """Does something with its features in training only."""

    def __init__(self, in_training: Callable[["Trained", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.width, self.in_training = 8, in_training
        self.first, self.last = nn.Conv1d(1, 8, 3), nn.Conv1d(8, 1, 1)
        self.aside, self.head, self.token = nn.Conv1d(8, 6, 1), nn.Conv1d(6, 8, 1), nn.Parameter(torch.randn(8, 1))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.first(x).relu()
        if not self.training:
            return self.last(y)
        z = self.in_training(self, y)
        return self.last(y + z) if z.shape == y.shape else (self.last(y), z)


def averaged(model: Trained, y: Tensor) -> Tensor:
    model.mean.data.mul_(0.9).add_(y.detach().mean((0, 2)), alpha=0.1)
    return y - model.mean[:, None]


WAYS: dict[str, tuple[Callable[[Trained, Tensor], Tensor], dict[str, int]]] = {
    "returned": (lambda m, y: m.aside(y), {"first.weight[0]": 8}),
    "added": (lambda m, y: m.head(m.aside(y)), {"first.weight[0]": 8, "aside.weight[0]": 6}),
    "masked": (lambda m, y: torch.where(torch.rand(y.shape[-1]) < 0.5, m.token, y), {"token[0]": 8}),
    "sized": (
        lambda m, y: m.head(m.aside(y)).view(-1, m.width, y.shape[-1]),
        {"first.weight[0]": 8, "aside.weight[0]": 6},
    ),
    "sorted": (lambda m, y: m.head(m.aside(y).sort(1).values), {"first.weight[0]": 8}),
    "averaged": (averaged, {"first.weight[0]": 8}),
    "nothing": (lambda m, y: y, {"first.weight[0]": 8}),
}


class Folded(nn.Module):
    """Branches that training runs one by one, and that are one kernel in eval mode: its sides are apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inner, self.last = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 8, 1), nn.Conv1d(8, 1, 1)
        self.identity = torch.eye(8, dtype=torch.float64)[:, :, None]

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.training:
            return self.last((self.inner(x) + x).relu())
        kernel = self.inner.weight + self.identity
        return self.last(nn.functional.conv1d(x, kernel, self.inner.bias).relu())


def halved(model: nn.Module, graph: DependencyGraph) -> nn.Module:
    """Verified, with every second channel of every group."""
    plan = graph.plan({group.name: range(0, group.width, 2) for group in graph.groups})
    pruned = apply(model, plan)
    verify(model, pruned, plan, EXAMPLE, graph=graph)
    return pruned


@pytest.mark.parametrize("way", WAYS)
def test_what_only_training_reads_shrinks_with_what_it_reads(way: str) -> None:
    in_training, groups = WAYS[way]
    model = Trained(in_training).double()
    graph = build_graph(model, EXAMPLE)
    assert {group.name: group.width for group in graph.groups} == groups
    pruned = halved(model, graph).train()
    pruned(EXAMPLE)
    reads = way in ("returned", "added", "sized", "sorted")
    assert pruned.mean.shape == (4 if way == "averaged" else 8,)
    assert pruned.aside.weight.shape == (3 if "aside.weight[0]" in groups else 6, 4 if reads else 8, 1)


def test_a_size_of_no_known_origin_that_only_training_reads_keeps_its_channels() -> None:
    model = Trained(lambda m, y: y * torch.randn(int(str(m.width)), 1, dtype=y.dtype)).double()
    model.first = nn.Sequential(nn.Conv1d(1, 6, 1), nn.Conv1d(6, 8, 1)).double()
    result = prunegraph.prune(model, EXAMPLE, criterion="l1", budget=Budget(ratio=0.5))
    (failure,) = result.report.unproved.values()
    assert list(result.report.unproved) == ["first.1.weight[0]"]
    assert result.model.first[0].out_channels == 3
    assert "fails in training mode, in which the original runs" in failure
    result.model.train()(EXAMPLE)


class Expanded(nn.Module):
    """Expands its features, and writes their number down for training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Conv1d(1, 8, 3), nn.Conv1d(8, 12, 1), nn.Conv1d(12, 8, 1)
        self.last = nn.Conv1d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = y + self.down(torch.tanh(self.up(y)))
        return self.last(y * torch.rand(8, 1, dtype=y.dtype) if self.training else y)


def test_other_channels_of_a_module_that_fails_in_training_go() -> None:
    result = prunegraph.prune(Expanded().double(), EXAMPLE, criterion="l1", budget=Budget(ratio=0.5))
    assert list(result.report.unproved) == ["first.weight[0]"]
    assert (result.model.first.out_channels, result.model.up.out_channels) == (8, 6)


def test_a_network_that_cannot_be_trained_is_pruned_nevertheless() -> None:
    def refuse(model: Trained, y: Tensor) -> Tensor:
        raise RuntimeError("only for inference")

    model = Trained(refuse).double()
    assert halved(model, build_graph(model, EXAMPLE)).first.out_channels == 4


def test_what_training_couples_goes_together() -> None:
    model = Folded().double()
    graph = build_graph(model, EXAMPLE)
    assert [group.name for group in graph.groups] == ["first.weight[0]"]
    pruned = halved(model, graph)
    torch.testing.assert_close(pruned.train()(EXAMPLE), pruned.eval()(EXAMPLE), rtol=1e-10, atol=1e-10)


class Remade(nn.Module):
    """Draws masks anew in training where the size of the batch is another."""

    def __init__(self, read: Callable[[int], int] = lambda size: size) -> None:
        super().__init__()
        self.first, self.last, self.width, self.batch = nn.Linear(4, 8), nn.Linear(8, 4), 8, 0
        self.read = read
        self.register_buffer("masks", torch.ones(16, 8, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        if self.batch != x.shape[0]:
            self.batch = x.shape[0]
            if self.training:
                self.masks = torch.ones(16, self.read(self.width), dtype=x.dtype)
        y = self.first(x).relu()
        return self.last(y * self.masks[: x.shape[0], None] if self.training else y)


def test_what_training_makes_anew_for_another_batch_follows() -> None:
    model, example = Remade().double().eval(), torch.randn(1, 5, 4, dtype=torch.float64)
    model(example)  # so that training on the example makes nothing anew
    result = prunegraph.prune(model, example, criterion="l1", budget=Budget(ratio=0.5))
    assert (result.model.width, result.model.masks.shape) == (4, (16, 4))
    assert not result.report.unproved
    pruned = result.model.train()
    assert pruned(example.repeat(3, 1, 1)).shape == (3, 5, 4)
    assert pruned.masks.shape == (16, 4)


def test_training_is_tried_with_another_batch() -> None:
    model, example = Remade(lambda size: int(str(size))).double().eval(), torch.randn(1, 5, 4, dtype=torch.float64)
    model(example)
    model.first = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 8)).double()
    result = prunegraph.prune(model, example, criterion="l1", budget=Budget(ratio=0.5))
    assert list(result.report.unproved) == ["first.1.weight[0]"]


class Merged(nn.Module):
    """Adds a correction to its weight when it goes to eval mode, and takes it off in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 1, 1)
        self.merged = False

    def train(self, mode: bool = True) -> "Merged":
        if mode == self.merged:
            self.first.weight.data += -1 if mode else 1
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) + (not self.merged))


def test_weights_that_depend_on_the_mode_are_refused_in_the_other_one() -> None:
    model = Merged().double()
    with pytest.raises(UnsupportedModelError, match=r"eval\(\) changes the weights of the network, first.weight first"):
        build_graph(model, EXAMPLE)
    halved(model.eval(), build_graph(model, EXAMPLE))


class Gated(nn.Module):
    """As the Balancer of Zipformers: it asserts its width, by chance, where gradients flow."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and random.random() < 0.99:
            assert x.shape[1] == self.num_channels
        return x


@pytest.mark.parametrize("training_only", [False, True])
def test_sizes_read_only_where_gradients_flow_follow(training_only: bool) -> None:
    model = nn.Sequential(nn.Conv1d(1, 8, 3), Gated(8), nn.Conv1d(8, 1, 1)).double()
    if training_only:
        model[1].register_forward_pre_hook(lambda module, args: args if module.training else args[0].detach())
    pruned = halved(model, build_graph(model, EXAMPLE))
    assert pruned.get_submodule("1").num_channels == 4
    pruned.train()(EXAMPLE).sum().backward()


class Supervised(nn.Module):
    """All heads run; training returns the outputs of all of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 8, 1)
        self.heads = nn.ModuleList(nn.Conv1d(8, 2, 1) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor] | Tensor:
        first = self.first(x).relu()
        outputs = [self.heads[0](first), self.heads[1](self.second(first).relu())]
        return outputs if self.training else outputs[-1]


def test_what_training_returns_keeps_its_shape() -> None:
    model = Supervised().double()
    graph = build_graph(model, EXAMPLE)
    assert {group.name for group in graph.groups} == {"first.weight[0]", "second.weight[0]"}
    assert [y.shape[1] for y in halved(model, graph).train()(EXAMPLE)] == [2, 2]


def test_training_that_cannot_be_recorded_is_still_compared() -> None:
    class Hidden(Supervised):
        def forward(self, x: Tensor) -> list[Tensor] | Tensor:
            if self.training and torch.fx.experimental.proxy_tensor.get_proxy_mode() is not None:
                raise RuntimeError("not to be recorded")
            return super().forward(x)

    result = prunegraph.prune(Hidden().double(), EXAMPLE, criterion="random", budget=Budget(ratio=0.5))
    assert [y.shape[1] for y in result.model.train()(EXAMPLE)] == [2, 2]
    assert set(result.report.unproved) == {"heads.0.weight[0]"}


def test_widths_written_where_gradients_flow_are_not_proved() -> None:
    class Written(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y = self[1](self[0](x))
            return self[2](y * torch.ones(8, 1, dtype=y.dtype) if torch.is_grad_enabled() else y)

    model = Written(nn.Conv1d(1, 6, 1), nn.Conv1d(6, 8, 1), nn.Conv1d(8, 1, 1)).double()
    result = prunegraph.prune(model, EXAMPLE, criterion="random", budget=Budget(macs=0.8))
    assert set(result.report.unproved) | {lock.name for lock in build_graph(model, EXAMPLE).locked} >= {"1.weight[0]"}
    result.model.train()(EXAMPLE).sum().backward()


class Noisy(nn.Module):
    """Adds noise as wide as an attribute says, in training only."""

    def __init__(self, draw: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self.channels, self.draw = 16, draw
        self.first, self.last = nn.Conv1d(1, 16, 8, 4), nn.Conv1d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(x + 0.1 * self.draw(self.channels, x) if self.training else x)


@pytest.mark.parametrize(
    "draw",
    [
        lambda channels, x: torch.randn(x.shape[0], channels, 1),
        lambda channels, x: torch.rand(channels, 1),
        lambda channels, x: torch.randint(0, 2, (channels, 1)),
        lambda channels, x: torch.randn_like(x),
        lambda channels, x: torch.empty(channels, 1).uniform_(),
        lambda channels, x: torch.normal(x, 1.0),
        lambda channels, x: torch.bernoulli(torch.full((channels, 1), 0.5)),
    ],
    ids=["randn", "rand", "randint", "randn_like", "uniform_", "normal", "bernoulli"],
)
def test_noise_of_training_follows(draw: Callable[[int, Tensor], Tensor]) -> None:
    result = prunegraph.prune(Noisy(draw), torch.randn(1, 1, 400), criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert result.model.first.out_channels == 8
    assert not result.report.unproved
    result.model.train()(torch.randn(2, 1, 400))


class LinearAttention(nn.Module):
    """Heads on two scales; that they, and not their widths, are the channels shows only where the scales meet."""

    def __init__(self, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.width, self.dropout, inner = width, nn.Dropout(dropout), 3 * heads * width
        self.qkv = nn.Conv1d(24, inner, 1)
        self.wider = nn.Conv1d(inner, inner, 1, groups=3 * heads)
        self.last = nn.Conv1d(2 * heads * width, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.dropout(self.qkv(x))
        both = torch.cat([qkv, self.wider(qkv)], 1).reshape(x.shape[0], -1, 3 * self.width, x.shape[-1])
        q, k, v = both.transpose(-1, -2).chunk(3, dim=-1)
        attended = q @ (k.transpose(-1, -2) @ v)
        scale = 2.0 if self.training else 1.0
        return scale * self.dropout(self.last(attended.transpose(-1, -2).reshape(x.shape[0], -1, x.shape[-1])))


def test_dropout_hides_no_choice_from_the_run_in_training() -> None:
    """Dropout locked everything there, so that no way was better than the first one, which couples all channels."""

    def widths(dropout: float) -> list[int]:
        model = nn.Sequential(nn.Conv1d(1, 24, 1), LinearAttention(4, 8, dropout), nn.Conv1d(24, 1, 1))
        return [group.width for group in prunegraph.build_graph(model, torch.randn(1, 1, 20)).groups]

    assert widths(0.1) == widths(0.0)
    assert 4 in widths(0.1)
