"""Numbers that the code computes from attributes, where sizes use those in other ways than as they are."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph.surgery.slicing import apply
from prunegraph.verification.differences import relative_difference

EXAMPLE = torch.randn(1, 1, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Halves(nn.Module):
    """Folds its 24 channels into 12 pairs, by a view or a cut that attributes give."""

    def __init__(self, fold: Callable[["Halves", Tensor], Tensor], outputs: int = 12) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fold, self.whole, self.half, self.parts = fold, 24, 12, 2
        self.first, self.wide, self.last = nn.Conv1d(1, 8, 4), nn.Conv1d(8, 24, 1), nn.Conv1d(outputs, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.fold(self, self.wide(self.first(x).relu())))
        return y


FOLDS: dict[str, tuple[Callable[[Halves, Tensor], Tensor], int]] = {
    "whole by a half": (lambda m, y: y.view(1, m.whole // 2, 2, -1).sum(2) / m.whole, 12),
    "half of the whole": (lambda m, y: y.view(1, m.whole // 2, 2, -1).sum(2) / (m.whole // 2), 12),
    "whole by a true half": (lambda m, y: y.view(1, int(m.whole / 2), 2, -1).sum(2) / m.whole**0.5, 12),
    "twice the half": (lambda m, y: y.view(1, 2 * m.half, -1) / m.half, 24),
    "cut": (lambda m, y: (y[:, : m.whole // 2] + y[:, m.whole // 2 :]) * torch.full((1,), 1 / m.whole), 12),
    "part of another": (lambda m, y: y.view(1, m.whole // m.parts, m.parts, -1).sum(2) / m.whole, 12),
}


@torch.no_grad()
@pytest.mark.parametrize("fold", FOLDS)
def test_a_number_from_an_attribute_follows(fold: str) -> None:
    model = Halves(*FOLDS[fold]).double()
    graph = prunegraph.build_graph(model, EXAMPLE)
    plan = graph.plan({group.name: range(group.width // 2) for group in graph.groups})
    keep = torch.from_numpy(graph.kept_channels(plan.kept)).double()
    expected = prunegraph.MaskedProgram(graph).run(keep, (EXAMPLE,))
    pruned = apply(model, plan)
    assert pruned.wide.out_channels < 24
    assert relative_difference([pruned(EXAMPLE)], expected) < 1e-12


SCALES: dict[str, Callable[[Halves], float]] = {
    "whole division": lambda m: m.whole // 2,
    "remainder": lambda m: divmod(m.whole, 2)[0],
    "cut off": lambda m: int(m.whole / 2),
    "rounded": lambda m: round(m.whole / 2),
    "rounded up": lambda m: math.ceil(m.whole / 2),
    "exact": lambda m: m.whole / 2,
}


def gradients(scale: Callable[[Halves], float]) -> Tensor:
    model = Halves(lambda m, y: y.view(1, m.whole, -1) / math.sqrt(scale(m)), 24).double()
    program = prunegraph.MaskedProgram(prunegraph.build_graph(model, EXAMPLE))
    keep = torch.ones(8 + 24, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(program.run(keep, (EXAMPLE,))[0].square().sum(), keep)[0]


@pytest.mark.parametrize("scale", SCALES)
def test_rounded_numbers_have_the_gradients_of_what_is_rounded(scale: str) -> None:
    torch.testing.assert_close(gradients(SCALES[scale]), gradients(SCALES["exact"]))


class Heads(nn.Module):
    """Heads go, and their width, by which attention is scaled, stays."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.heads = 48, 4
        self.first, self.last = nn.Linear(8, 16), nn.Linear(48, 8)
        self.keys, self.values = nn.Linear(16, 48), nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        x, width = self.first(x), self.inner // self.heads
        k, v = (layer(x).view(*x.shape[:2], self.heads, width).transpose(1, 2) for layer in (self.keys, self.values))
        rates = torch.exp(-torch.arange(0, width, 2) / width)
        attended = (k @ k.transpose(-1, -2) * rates.sum()).softmax(-1) @ v
        return self.last(attended.transpose(1, 2).reshape(*x.shape[:2], -1))


def test_a_size_that_stays_fixes_what_it_is_computed_from() -> None:
    model, example = Heads().double(), torch.randn(1, 10, 8, dtype=torch.float64)
    graph = prunegraph.build_graph(model, example)
    heads = next(group for group in graph.groups if group.name == "keys.weight[0]")
    assert heads.width == 4
    plan = graph.plan({heads.name: [0, 2]})
    pruned = apply(model, plan)
    assert (pruned.inner, pruned.heads) == (24, 2)
    prunegraph.verify(model, pruned, plan, example, graph=graph)
