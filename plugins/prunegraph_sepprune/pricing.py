"""The price of MACs: which channels are worth what they cost."""

import numpy as np
from numpy.typing import NDArray

from prunegraph.ir.budget import Budget
from prunegraph.plugin import GraphView
from prunegraph.selection.selector import Projection


class MarginalPrice:
    r"""Prices at which just as much is worth its price as the budget has room for.

    With benefit $b_c$ (by how much the loss rises without channel $c$) and cost $k_c$ (by how much the MACs fall), the
    channels with the greatest $b_c / k_c$ are kept until the budget is spent; $\lambda$ is the ratio at which that
    happens, and channel $c$'s price is $\lambda k_c$. Under a ratio, which every group keeps for itself, each group has
    a $\lambda$ of its own and all costs are 1.

    Args:
        graph: the groups.
        budget: what may stay.
        projection: what the budget leaves for any scores.
    """

    def __init__(self, graph: GraphView, budget: Budget, projection: Projection) -> None:
        self._graph, self._budget, self._projection = graph, budget, projection
        self._bounds = np.cumsum([group.width for group in graph.groups])[:-1]

    def __call__(self, benefit: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Prices of all channels, shape ``(channels,)``."""
        if self._budget.ratio is not None:
            stays = np.split(self._projection(benefit), self._bounds)
            parts = zip(np.split(benefit, self._bounds), stays, strict=True)
            return np.concatenate([np.full(len(b), margin(b, s)) for b, s in parts])
        costs = self._graph.cost_gradient(kept, of_macs=self._budget.macs is not None)
        costs = np.maximum(costs, costs[costs > 0].min(initial=1.0)) / max(costs.mean(), 1e-30)
        worth = benefit / costs
        return np.asarray(margin(worth, self._projection(worth)) * costs)


def margin(values: NDArray[np.float64], stays: NDArray[np.bool_]) -> float:
    """Half-way between the last value that stays and the first that goes, when as many stay as ``stays`` says."""
    count = int(stays.sum())
    if count in (0, len(values)):
        return float(values.max() if count == 0 else values.min())
    descending = np.sort(values)[::-1]
    return float(descending[count - 1 : count + 1].mean())
