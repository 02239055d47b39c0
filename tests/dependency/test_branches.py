"""Comparisons of sizes in the user's code: no choice of channels may turn a branch."""

import pytest
import torch
from torch import Tensor, nn

import prunegraph

EXAMPLE = torch.randn(1, 4, 16)


class Residual(nn.Module):
    """Projects its input only where the widths differ."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 6, 1)
        self.wide = nn.Conv1d(6, 8, 1)
        self.project = nn.Conv1d(6, 8, 1)
        self.last = nn.Conv1d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = torch.relu(self.wide(x))
        return self.last(y + (x if x.shape[1] == y.shape[1] else self.project(x)))


class WrittenWidth(nn.Module):
    """Asks for a width that stands in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 6, 1)
        self.last = nn.Conv1d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x * 2 if x.shape[1] == 6 else x)


class Ordered(nn.Module):
    """Has a further layer where the width is more than four."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 1)
        self.other, self.last = nn.Conv1d(8, 8, 1), nn.Conv1d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.relu(self.middle(x)) + x if x.shape[1] > 4 else x
        return self.last(self.other(x))


def test_a_plan_that_turns_an_order_is_refused() -> None:
    graph = prunegraph.build_graph(Ordered(), EXAMPLE)
    with pytest.raises(prunegraph.PlanError, match=r"test_branches.py:\d+ are ordered otherwise.*keep more channels"):
        graph.plan({"first.weight[0]": range(4)})
    assert graph.plan({"first.weight[0]": range(5)})


@pytest.mark.parametrize("share", [0.8, 0.5, 0.4])
def test_selection_keeps_enough_for_the_order(share: float) -> None:
    graph = prunegraph.build_graph(Ordered(), EXAMPLE)
    scores = {group.name: torch.arange(1.0, group.width + 1) for group in graph.groups}
    plan = prunegraph.select(graph, scores, prunegraph.Budget(params=share))
    assert len(plan.kept["first.weight[0]"]) > 4
    assert graph.cost(plan).parameters <= share * graph.cost().parameters


def test_an_order_that_leaves_no_room_is_said() -> None:
    graph = prunegraph.build_graph(Ordered(), EXAMPLE)
    scores = {group.name: torch.ones(group.width) for group in graph.groups}
    with pytest.raises(prunegraph.BudgetError, match="cannot be met"):
        prunegraph.select(graph, scores, prunegraph.Budget(params=0.1))


def test_a_plan_that_turns_a_branch_is_refused() -> None:
    graph = prunegraph.build_graph(Residual(), EXAMPLE)
    with pytest.raises(prunegraph.PlanError, match=r"test_branches.py:\d+ become equal.*first.weight.*wide.weight"):
        graph.plan({"first.weight[0]": range(4), "wide.weight[0]": range(4)})
    assert graph.plan({"first.weight[0]": range(4), "wide.weight[0]": range(5)})


@pytest.mark.parametrize("pin", [{"first.*": 4, "wide.*": 4}, {}])
def test_selection_keeps_clear_of_equal_widths(pin: dict[str, int]) -> None:
    graph = prunegraph.build_graph(Residual(), EXAMPLE)
    scores = {group.name: torch.ones(group.width) for group in graph.groups}
    scores["wide.weight[0]"][6:] = 0
    if pin:
        with pytest.raises(prunegraph.PlanError, match="become equal"):
            prunegraph.select(graph, scores, prunegraph.Budget(params=0.9, pin=pin))
        return
    for share in (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5):
        plan = prunegraph.select(graph, scores, prunegraph.Budget(params=share))
        assert len(plan.kept["first.weight[0]"]) != len(plan.kept["wide.weight[0]"])


def test_a_width_that_the_code_asks_for_stays() -> None:
    graph = prunegraph.build_graph(WrittenWidth(), EXAMPLE)
    assert not graph.groups
    assert any("test_branches.py" in str(lock.site) for group in graph.locked for lock in group.locks)


class AtLeast(nn.Module):
    """Asks whether a value has as many channels as an attribute says, which nothing else reads."""

    def __init__(self, relation: str) -> None:
        super().__init__()
        self.width, self.relation = 6, relation
        self.first, self.last = nn.Conv1d(4, 6, 1), nn.Conv1d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        found = {
            "attribute <= size": lambda: self.width <= x.shape[1],
            "size >= attribute": lambda: x.shape[1] >= self.width,
            "not attribute > size": lambda: not self.width > x.shape[1],
            "size == attribute": lambda: x.shape[1] == self.width,
            "size <= attribute": lambda: x.shape[1] <= self.width,
        }[self.relation]()
        if not found:
            raise ValueError("too few channels")
        return self.last(x)


@pytest.mark.parametrize(
    ("relation", "width"),
    [
        ("attribute <= size", 3),
        ("size >= attribute", 3),
        ("not attribute > size", 3),
        ("size == attribute", 3),
        ("size <= attribute", 6),
    ],
)
def test_an_attribute_that_the_size_must_reach_follows(relation: str, width: int) -> None:
    result = prunegraph.prune(AtLeast(relation), EXAMPLE, criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert result.model.first.out_channels == 3
    assert result.model.width == width
