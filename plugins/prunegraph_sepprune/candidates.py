"""Stage 1: where the MACs are."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from prunegraph.ir.budget import Budget
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


def candidate_groups(graph: GraphView, budget: Budget, share: float) -> frozenset[str]:
    """The groups worth pruning: the most expensive ones that together make up ``share`` of what all groups save.

    A budget's ``include`` and ``pin`` patterns override it: with either, every group is a candidate and the budget
    alone decides.
    """
    if budget.include or budget.pin or budget.macs is None:
        return frozenset(group.name for group in graph.groups)
    saved = macs_saved(graph)
    wanted, chosen, total = share * sum(saved.values()), set(), 0.0
    for name in sorted(saved, key=lambda name: -saved[name]):
        if total >= wanted:
            break
        chosen.add(name)
        total += saved[name]
    return frozenset(chosen)
