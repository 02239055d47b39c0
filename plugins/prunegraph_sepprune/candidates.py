"""Stage 1: which groups lose channels, and how many."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from prunegraph.ir.budget import Budget
from prunegraph.plugin import GraphView
from prunegraph.selection.selector import Projection, prunable_groups
from prunegraph_reconstruction import macs_saved


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


def widths_left(graph: GraphView, budget: Budget, candidates: frozenset[str], prior: Mapping[str, Tensor]) -> list[int]:
    """How many channels of each group stay when the candidates lose those that the prior ranks last.

    Raises:
        BudgetError: the candidates alone cannot meet the budget.
    """
    whole = sorted({group.name for group in graph.groups} - candidates)
    scores = [prior[group.name].double().cpu().numpy() for group in graph.groups]
    stays = Projection(graph, replace(budget, exclude=(*budget.exclude, *whole)))(np.concatenate(scores))
    bounds = np.cumsum([group.width for group in graph.groups])[:-1]
    return [int(part.sum()) for part in np.split(stays, bounds)]
