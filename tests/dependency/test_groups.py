"""Channel groups of small networks, as derived by hand from their code."""

import pytest

from prunegraph import DependencyGraph, build_graph
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
