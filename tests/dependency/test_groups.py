"""Channel groups of small networks, as derived by hand from their code."""

import pytest
import torch
from torch import Tensor, nn

from prunegraph import DependencyGraph, apply, build_graph, verify
from tests.dependency.cases import CASES


def channels_of(graph: DependencyGraph) -> list[frozenset[frozenset[tuple[str, int]]]]:
    """For each group its channels, each as the set of (tensor dimension, index) that belong to it."""
    return [
        frozenset(
            frozenset((f"{m.tensor}[{m.dim}]", int(i)) for m in group.members for i in m.indices[channel])
            for channel in range(group.width)
        )
        for group in graph.groups
    ]


@pytest.mark.parametrize("name", CASES)
def test_groups_are_those_that_follow_from_the_code(name: str) -> None:
    case = CASES[name]
    graph = build_graph(*case.example())
    found = channels_of(graph)
    expected = [group.channels() for group in case.groups]
    assert sorted(map(len, found)) == sorted(map(len, expected))
    assert set(found) == set(expected)
    assert dict(graph.without_rule) == {}


class ByAnother(nn.Module):
    """Reads its width off a tensor whose values nothing needs."""

    def __init__(self, *, buffer: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 12, 3), nn.Conv1d(12, 1, 3)
        if buffer:
            self.register_buffer("like", torch.zeros(12))
        else:
            self.like = nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).reshape(x.shape[0], self.like.size(0), -1))


@pytest.mark.parametrize("buffer", [False, True])
def test_a_tensor_whose_size_is_read_shrinks_with_what_it_sizes(buffer: bool) -> None:
    model, x = ByAnother(buffer=buffer).eval(), torch.randn(2, 1, 20)
    graph = build_graph(model, x)
    assert graph.unused == frozenset()
    plan = graph.plan({graph.groups[0].name: range(5)})
    pruned = apply(model, plan)
    assert pruned.like.shape == (5,)
    assert verify(model, pruned, plan, x, graph=graph).difference < 1e-5
