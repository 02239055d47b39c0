"""Groups that kernels want equally wide: keys and values, for the fused kernels of attention.

With heads of 9 and 14 channels `F.scaled_dot_product_attention` leaves its fused kernels, and takes several times as
long as with 12 and 12.
"""

from collections.abc import Iterator

import networkx as nx

from prunegraph.graph import DependencyGraph


def alike(graph: DependencyGraph) -> list[frozenset[str]]:
    """Sets of equally wide groups of which as many channels each should stay."""
    return [frozenset(names) for names in nx.connected_components(nx.Graph(_pairs(graph)))]


def _pairs(graph: DependencyGraph) -> Iterator[tuple[str, str]]:
    widths = {group.name: group.width for group in graph.groups}
    for ruled in graph.calls.values():
        for dims in ruled.rule.alike(ruled.call):
            names = [name for atoms in dims for name in graph.groups_among(atoms)]
            if len(names) == 2 and len({*map(len, dims), *(widths[name] for name in names)}) == 1:
                yield names[0], names[1]
