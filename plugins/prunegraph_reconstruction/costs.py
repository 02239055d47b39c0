"""Where the MACs are."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from prunegraph.plugin import GraphView


def macs_saved(graph: GraphView) -> Mapping[str, float]:
    """By how much the MACs fall when all channels but one of a group go: group name -> share of the network's MACs."""
    bounds = np.cumsum([0, *(group.width for group in graph.groups)])
    everything = np.ones(bounds[-1], bool)
    dense = graph.macs_and_parameters(everything)[0]
    saved = {}
    for group, start, end in zip(graph.groups, bounds[:-1], bounds[1:], strict=True):
        kept = everything.copy()
        kept[start + 1 : end] = False
        saved[group.name] = (dense - graph.macs_and_parameters(kept)[0]) / max(dense, 1)
    return MappingProxyType(saved)
