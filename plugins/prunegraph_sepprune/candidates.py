"""Stage 1: where the MACs are."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from prunegraph.ir.budget import Budget
from prunegraph.plugin import GraphView
from prunegraph.selection.selector import Projection, prunable_groups


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

    Groups that the budget's patterns keep whole are none. Its ``include`` and ``pin`` patterns override the share: with
    either, every group that they leave is a candidate.
    """
    allowed = prunable_groups(graph, budget)
    if budget.include or budget.pin or budget.macs is None:
        return allowed
    saved = {name: share for name, share in macs_saved(graph).items() if name in allowed}
    wanted, chosen, total = share * sum(saved.values()), set(), 0.0
    for name in sorted(saved, key=lambda name: -saved[name]):
        if total >= wanted:
            break
        chosen.add(name)
        total += saved[name]
    return frozenset(chosen)


def even_widths(graph: GraphView, budget: Budget, candidates: frozenset[str]) -> list[int]:
    """How many channels of each group stay when every candidate loses about the same share and the others nothing.

    Raises:
        BudgetError: the candidates alone cannot meet the budget.
    """
    whole = sorted({group.name for group in graph.groups} - candidates)
    ranks = [np.linspace(0, 1, group.width) for group in graph.groups]
    stays = Projection(graph, replace(budget, exclude=(*budget.exclude, *whole)))(np.concatenate(ranks))
    bounds = np.cumsum([group.width for group in graph.groups])[:-1]
    return [int(part.sum()) for part in np.split(stays, bounds)]
