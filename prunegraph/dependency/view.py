"""The dependency graph for inspection: a networkx graph of coupled tensor dimensions."""

from collections.abc import Sequence

import networkx as nx

from prunegraph.ir.channels import ChannelGroup, LockedGroup, Member


def as_networkx(groups: Sequence[ChannelGroup], locked: Sequence[LockedGroup]) -> nx.Graph:
    """One node per tensor dimension and one per group; an edge says that the dimension shrinks with the group.

    Node attributes: ``kind`` ("group", "locked" or "dimension"), ``width`` of groups, ``reason`` of locked ones,
    ``tensor`` and ``dim`` of dimensions. Edge attribute ``multiplicity``: indices per channel. All of them are
    strings and numbers, as GraphML wants.
    """
    graph: nx.Graph = nx.Graph()
    for group in groups:
        graph.add_node(f"group {group.name}", kind="group", width=group.width)
        _connect(graph, f"group {group.name}", group.members)
    for number, fixed in enumerate(locked):
        name = f"locked {number} {fixed.name}"
        graph.add_node(name, kind="locked", width=fixed.width, reason="; ".join(map(str, fixed.locks)))
        _connect(graph, name, fixed.members)
    return graph


def _connect(graph: nx.Graph, group: str, members: Sequence[Member]) -> None:
    for member in members:
        dimension = f"{member.tensor}[{member.dim}]"
        graph.add_node(dimension, kind="dimension", tensor=member.tensor, dim=member.dim)
        graph.add_edge(group, dimension, multiplicity=int(member.indices.shape[1]))
