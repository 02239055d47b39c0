"""Sizes that the code makes other things of: tensors, ordinary numbers, places of outputs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph.capture.made_of_numbers import MADE_OF_NUMBERS

EXAMPLE = torch.randn(2, 1, 40, dtype=torch.float64)


class Scaled(nn.Module):
    """Scales features by a number that is computed from their width."""

    def __init__(self, scale: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = scale
        self.first, self.last = nn.Conv1d(1, 12, 3), nn.Conv1d(12, 1, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x / self.scale(x.shape[1], x))


@pytest.mark.parametrize(
    "scale",
    [
        lambda width, x: torch.tensor(width, dtype=x.dtype).sqrt(),
        lambda width, x: torch.sqrt(torch.tensor(width)),
        lambda width, x: torch.tensor([width, width + 1.5]).sum(),
        lambda width, x: torch.as_tensor(width / 2),
        lambda width, x: torch.full((x.shape[-1],), width, dtype=x.dtype),
        lambda width, x: torch.full((1,), width),
        lambda width, x: x.new_tensor([width]),
        lambda width, x: float(width) ** -0.5,
        lambda width, x: int(width / 2 + 0.5) + int(float(2 * x.shape[1])) - int("7", 8) + int() + float(),  # noqa: UP018 - on purpose
        lambda width, x: width if isinstance(width, int) and not isinstance(width / 2, (int, str)) else 1,
    ],
)
def test_tensors_of_a_size_follow_it(scale: Callable[[Any, Tensor], Any]) -> None:
    model = Scaled(scale)
    result = prunegraph.prune(model, EXAMPLE, criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert result.plan.widths == {"first.weight[0]": 12}
    assert len(result.plan.kept["first.weight[0]"]) == 6
    kept = list(result.plan.kept["first.weight[0]"])
    features = model.first(EXAMPLE)[:, kept]
    expected = nn.functional.conv1d(features / model.scale(6, features), model.last.weight[:, kept], model.last.bias)
    torch.testing.assert_close(result.model(EXAMPLE), expected)


@pytest.mark.parametrize("data", [2, 2.5, True, 1j, [1, 2.5], [True, 1], [True, False], [[1], [1j]], np.float32(2)])
def test_tensors_of_numbers_have_the_types_that_torch_gives_them(data: Any) -> None:
    made = MADE_OF_NUMBERS[torch.tensor](data)
    assert (made.dtype, made.tolist()) == (torch.tensor(data).dtype, torch.tensor(data).tolist())


class Causal(nn.Module):
    """Attention to the past alone."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.last = nn.Linear(4, 12), nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        future = torch.full((x.shape[1], x.shape[1]), True).triu(1)
        scores = self.queries(x) @ self.keys(x).mT / self.queries.out_features**0.5
        return self.last(scores.masked_fill(future, -math.inf).softmax(-1) @ x)


def test_a_mask_full_of_true_is_one() -> None:
    model, x = Causal().double().eval(), torch.randn(1, 9, 4, dtype=torch.float64)
    result = prunegraph.prune(model, x, criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert (result.model.queries.out_features, result.report.unproved) == (6, {})


@pytest.mark.parametrize("scale", [lambda width, x: math.fsum([width]), lambda width, x: math.fsum([width, 0]) ** -0.5])
def test_a_size_that_becomes_an_ordinary_number_stays(scale: Callable[[Any, Tensor], Any]) -> None:
    graph = prunegraph.build_graph(Scaled(scale), EXAMPLE)
    assert not graph.groups
    locks = [lock for group in graph.locked for lock in group.locks]
    assert any("ordinary number of the size 12" in lock.reason for lock in locks)
    assert all("test_numbers.py" in str(lock.site) for lock in locks)


def test_conversions_of_other_sizes_lock_nothing() -> None:
    graph = prunegraph.build_graph(Scaled(lambda width, x: float(x.shape[-1]) + int(x.shape[0])), EXAMPLE)
    assert [group.width for group in graph.groups] == [12]


class Pieces(nn.Module):
    """Cut into pieces whose last number is the width of each."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 3
        self.first, self.last = nn.Conv1d(1, 12, 3), nn.Conv1d(3, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = torch.split(self.first(x), self.width, 1)
        return self.last(a + b * c - d)


def test_the_place_of_an_output_is_no_size() -> None:
    graph = prunegraph.build_graph(Pieces(), EXAMPLE.float())
    assert [group.width for group in graph.groups] == [3]


class Halves(nn.Module):
    """Treats the halves of its channels differently, cut at half of their number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.part, self.last = nn.Conv1d(1, 12, 1), nn.Conv1d(6, 6, 1), nn.Conv1d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        middle = x.shape[1] // 2
        return self.last(torch.cat([self.part(x[:, :middle]), torch.tanh(x[:, middle:])], dim=1))


def test_halves_shrink_together() -> None:
    model = Halves().double().eval()
    graph = prunegraph.build_graph(model, EXAMPLE)
    (first, _) = graph.groups
    owned = next(member.indices for member in first.members if member.tensor == "first.weight")
    assert owned.tolist() == [[i, i + 6] for i in range(6)]
    prunegraph.prune(model, EXAMPLE, criterion="l1", budget=prunegraph.Budget(ratio=0.5))


class Gated(nn.Module):
    """A WaveNet's gate, whose width travels through a tensor."""

    def __init__(self, gate: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.width = gate, 12
        self.first, self.last = nn.Conv1d(1, 24, 3), nn.Conv1d(12, 1, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gate(self.width, self.first(x)))


def _gate(x: Tensor, width: Any) -> Tensor:
    return x[:, :width].tanh() * x[:, width:].sigmoid()


WIDTH_THROUGH_A_TENSOR = {
    "IntTensor": lambda width, x: _gate(x, torch.IntTensor([width])[0]),
    "LongTensor, item": lambda width, x: _gate(x, torch.LongTensor([width]).item()),
    "list": lambda width, x: _gate(x, torch.tensor([[width, 3]]).tolist()[0][0]),
    "last of some": lambda width, x: _gate(x, torch.as_tensor([3, 4, width])[1:][-1]),
    "new_tensor": lambda width, x: _gate(x, x.new_tensor([width], dtype=torch.int64)[0]),
}


@pytest.mark.parametrize("gate", WIDTH_THROUGH_A_TENSOR.values(), ids=WIDTH_THROUGH_A_TENSOR.keys())
def test_a_size_comes_out_of_a_tensor_as_it_went_in(gate: Callable[[Any, Tensor], Tensor]) -> None:
    result = prunegraph.prune(Gated(gate), EXAMPLE.float(), criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert result.model.width == 6
    assert result.model.first.weight.shape[0] == 12


@pytest.mark.parametrize(
    "gate",
    [
        lambda width, x: _gate(x, torch.tensor([width - 1]).add_(1)[0]),
        lambda width, x: _gate(x, int(torch.tensor([width]))),
    ],
)
def test_a_size_that_is_lost_in_a_tensor_stays(gate: Callable[[Any, Tensor], Tensor]) -> None:
    with pytest.raises(prunegraph.errors.BudgetError, match=r"size 12|cannot be met|could not be proved"):
        prunegraph.prune(Gated(gate), EXAMPLE.float(), criterion="l1", budget=prunegraph.Budget(ratio=0.5))


class Flattened(nn.Module):
    """Flattens its features, and views them as heads again whose number and width it names only there."""

    def __init__(self, product: Callable[[Any], int]) -> None:
        super().__init__()
        self.product, self.heads, self.width = product, 4, 8
        self.first, self.last = nn.Conv1d(1, 32, 3), nn.Conv1d(32, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        flat = x.reshape(x.shape[0], self.product(x.shape[1:]))
        return self.last(flat.view(x.shape[0], self.heads * self.width, -1))


@pytest.mark.parametrize(
    "product",
    [
        lambda sizes: sizes.numel(),
        lambda sizes: math.prod(sizes),
        lambda sizes: np.prod(sizes),
        lambda sizes: int(np.prod([*sizes])),
    ],
)
def test_a_product_of_sizes_follows(product: Callable[[Any], int]) -> None:
    result = prunegraph.prune(Flattened(product), EXAMPLE.float(), criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert result.model.first.out_channels == result.model.heads * result.model.width == 16
    assert not result.report.unproved


class Typed(nn.Module):
    """Uses torch's typed constructors as types."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 12, 3), nn.Conv1d(12, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(x, torch.FloatTensor)
        assert not isinstance(x, torch.LongTensor)
        scale = torch.FloatTensor(1).fill_(2).type(torch.FloatTensor)
        return self.last(self.first(x).type(torch.FloatTensor) * scale)


def test_typed_constructors_stay_types() -> None:
    constructor = torch.IntTensor
    assert [group.width for group in prunegraph.build_graph(Typed(), EXAMPLE.float()).groups] == [12]
    assert torch.IntTensor is constructor


class Cumulative(nn.Module):
    """The cumulative layer norm of Conv-TasNet, whose counts of entries come from numpy."""

    def __init__(self, count: Callable[[Any, Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.count = count
        self.first, self.last = nn.Conv1d(1, 12, 3), nn.Conv1d(12, 1, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        count = self.count(x.shape[1], x.shape[2], x)
        mean = x.sum(1).cumsum(1) / count
        return self.last(x - mean[:, None])


FOLLOWED_COUNTS: dict[str, Callable[[Any, Any, Tensor], Tensor]] = {
    "from_numpy, type": lambda n, time, x: torch.from_numpy(np.arange(n, n * (time + 1), n)).type(x.type()),
    "from_numpy, to": lambda n, time, x: torch.from_numpy(np.arange(n, n * time + 1, n)).to(x),
    "tensor": lambda n, time, x: torch.tensor(np.arange(n, n * (time + 1), n), dtype=x.dtype),
    "new_tensor": lambda n, time, x: x.new_tensor(np.arange(n, n * (time + 1), n)),
    "DoubleTensor": lambda n, time, x: torch.DoubleTensor(np.arange(n, n * (time + 1), n)),
}


@pytest.mark.parametrize("count", FOLLOWED_COUNTS.values(), ids=FOLLOWED_COUNTS.keys())
def test_a_range_of_numpy_follows_its_sizes(count: Callable[[Any, Any, Tensor], Tensor]) -> None:
    model = Cumulative(count)
    result = prunegraph.prune(model, EXAMPLE, criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert len(result.plan.kept["first.weight[0]"]) == 6
    longer = torch.randn(3, 1, 70, dtype=torch.float64)
    kept = list(result.plan.kept["first.weight[0]"])
    features = model.first(longer)[:, kept]
    mean = features.mean(1).cumsum(1) / torch.arange(1, features.shape[-1] + 1)
    expected = nn.functional.conv1d(features - mean[:, None], model.last.weight[:, kept], model.last.bias)
    torch.testing.assert_close(result.model(longer), expected)


def _written(n: Any, time: Any, x: Tensor) -> Tensor:
    counts = np.arange(n, n * (time + 1), n)
    counts[0] = 1
    return torch.from_numpy(counts).to(x)


@pytest.mark.parametrize(
    "count",
    [
        lambda n, time, x: torch.from_numpy(np.arange(n, n * (time + 1), n) * 1).to(x),
        lambda n, time, x: torch.from_numpy(np.arange(n, n * (time + 1), n).astype("float64")),
        lambda n, time, x: torch.from_numpy(np.arange(n, n * (time + 1), n, dtype=np.float64)),
        _written,
    ],
)
def test_a_range_of_numpy_that_becomes_something_else_stays(count: Callable[[Any, Any, Tensor], Tensor]) -> None:
    graph = prunegraph.build_graph(Cumulative(count), EXAMPLE)
    assert not graph.groups
    assert any("ordinary number of the size 12" in lock.reason for group in graph.locked for lock in group.locks)
