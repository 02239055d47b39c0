"""Keys and values of attention stay equally wide: fused kernels take no other widths."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunegraph
from prunegraph import Budget, DependencyGraph
from prunegraph.selection.alike import alike

HEADS, WIDTH = 4, 16


class Attention(nn.Module):
    """Its values matter the less the lower their number in the head, its keys all alike."""

    def __init__(self, value_width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(8, 64), nn.Linear(HEADS * value_width, 8)
        self.keys, self.queries = nn.Linear(64, HEADS * WIDTH), nn.Linear(64, HEADS * WIDTH)
        self.values = nn.Linear(64, HEADS * value_width)
        with torch.no_grad():
            self.values.weight.mul_(torch.linspace(0, 2, value_width).repeat(HEADS)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in self._layers())
        return self.last(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _layers(self) -> tuple[nn.Linear, ...]:
        return self.queries, self.keys, self.values


def graph_of(model: nn.Module) -> DependencyGraph:
    return prunegraph.build_graph(model, torch.randn(1, 20, 8))


def widths(graph: DependencyGraph, budget: Budget) -> tuple[int, int]:
    plan = prunegraph.select(graph, prunegraph.score(graph, "l1"), budget)
    names = [next(name for name in plan.kept if name.startswith(layer)) for layer in ("keys", "values")]
    return len(plan.kept[names[0]]), len(plan.kept[names[1]])


@pytest.mark.parametrize("budget", [Budget(macs=0.5), Budget(params=0.6), Budget(macs=0.5, round_to=4)], ids=str)
def test_keys_and_values_stay_equally_wide(budget: Budget) -> None:
    graph = graph_of(Attention())
    key, value = widths(graph, budget)
    assert key == value < WIDTH
    assert key % budget.round_to == 0


@pytest.mark.parametrize(
    "budget",
    [
        Budget(macs=0.5, pin={"values*": 5}),
        Budget(macs=0.7, exclude=("values*",)),
        Budget(threshold=0.9),
    ],
    ids=str,
)
def test_what_the_budget_says_of_a_group_holds(budget: Budget) -> None:
    key, value = widths(graph_of(Attention()), budget)
    assert key != value


def test_groups_of_unequal_widths_are_left_alone() -> None:
    assert alike(graph_of(Attention(value_width=20))) == []


def test_the_even_width_is_the_middle_and_the_budget_is_used_up() -> None:
    graph = graph_of(Attention())
    plan = prunegraph.select(graph, prunegraph.score(graph, "l1"), Budget(macs=0.5))
    assert 0.48 < graph.cost(plan).macs / graph.cost().macs <= 0.5


def test_widths_for_speed_are_even_too() -> None:
    model = Attention()
    graph = graph_of(model)
    timings = prunegraph.profile(model.eval(), torch.randn(1, 20, 8), graph, measure_for=0.2)
    found = prunegraph.widths_for_speed(graph, timings, macs=0.5)
    (names,) = alike(graph)
    assert len({found[name] for name in names}) == 1
