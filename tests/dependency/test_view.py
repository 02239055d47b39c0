"""The networkx view and its GraphML, and names and order that stay from run to run."""

from pathlib import Path

import networkx as nx
import pytest

from prunegraph import build_graph
from tests.dependency.cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_the_view_has_an_edge_for_each_member(name: str) -> None:
    graph = build_graph(*CASES[name].example())
    view = graph.to_networkx()
    assert nx.is_bipartite(view)
    assert view.number_of_edges() == sum(len(g.members) for g in (*graph.groups, *graph.locked))
    assert {view.nodes[n]["width"] for n in view if view.nodes[n]["kind"] == "group"} == {g.width for g in graph.groups}


@pytest.mark.parametrize("name", ["heads", "transposed", "recurrent"])
def test_graphml_reads_back(name: str, tmp_path: Path) -> None:
    graph = build_graph(*CASES[name].example())
    graph.to_graphml(tmp_path / "graph.graphml")
    read, view = nx.read_graphml(tmp_path / "graph.graphml"), graph.to_networkx()
    assert dict(read.nodes(data=True)) == dict(view.nodes(data=True))
    assert {frozenset(e) for e in read.edges} == {frozenset(e) for e in view.edges}
    assert not list(tmp_path.glob("*tmp*"))


def test_a_locked_group_says_why_in_the_view() -> None:
    view = build_graph(*CASES["chain"].example()).to_networkx()
    reasons = [data["reason"] for _, data in view.nodes(data=True) if data["kind"] == "locked"]
    assert any("the network's output keeps its shape" in reason for reason in reasons)


@pytest.mark.parametrize("name", CASES)
def test_names_and_order_are_the_same_each_time(name: str) -> None:
    first, second = (build_graph(*CASES[name].example()) for _ in range(2))
    described = [
        [(g.name, g.width, [(m.tensor, m.dim, m.indices.tolist()) for m in g.members]) for g in graph.groups]
        for graph in (first, second)
    ]
    assert described[0] == described[1]
    assert len({group.name for group in first.groups}) == len(first.groups)


def test_groups_stand_in_the_order_of_the_network() -> None:
    assert [g.name for g in build_graph(*CASES["transposed"].example()).groups] == [
        "a.weight[0]",
        "c.weight[0]",
        "d.weight[0]",
    ]


def test_parts_of_one_dimension_are_numbered() -> None:
    assert [g.name for g in build_graph(*CASES["split"].example()).groups] == [
        "a.weight[0]",
        "a.weight[0]#2",
        "b.weight[0]",
    ]
