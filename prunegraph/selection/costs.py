"""The costs that a budget limits, all as functions of the channels that stay."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prunegraph.errors import BudgetError
from prunegraph.graph import DependencyGraph
from prunegraph.ir.budget import Budget
from prunegraph.ir.latency import LatencyProfile
from prunegraph.latency import LatencyModel
from prunegraph.plugin.contracts import GraphView

_STEPS = 30


class Costs:
    """MACs, parameters and, where the budget asks for it, latency.

    Args:
        graph: the network's groups and costs.
        budget: what may stay.
        latency: predicts seconds; None where there is no profile.

    Attributes:
        names: of the costs, as in the budget.

    Raises:
        BudgetError: the budget is one of latency and there is no profile, or one of the real-time factor and the
            profile does not know how long the audio is.
    """

    def __init__(self, graph: GraphView, budget: Budget, latency: LatencyModel | None) -> None:
        asked = [name for name in ("latency_ms", "rtf") if getattr(budget, name) is not None]
        if asked and latency is None:
            raise BudgetError(
                f"a budget of {asked[0]} needs a profile of the device: make one with prunegraph.profile(model, "
                "example_inputs), or the command prunegraph profile, and give it as profile=..."
            )
        self._graph, self._budget, self._latency = graph, budget, latency
        self.names = ("macs", "params", *asked)
        self._per_second = [self._scale(name) for name in asked]

    def __call__(self, kept: NDArray[np.bool_]) -> tuple[float, ...]:
        """The costs when channel i stays where ``kept[i]``."""
        seconds = self._latency.seconds(kept) if self._latency is not None and self._per_second else 0.0
        return (*self._graph.macs_and_parameters(kept), *(scale * seconds for scale in self._per_second))

    def limits(self, everything: NDArray[np.bool_]) -> tuple[float, ...]:
        """How much of each cost may stay; MACs and parameters of at most 1 are shares of the dense network's."""
        dense = self._graph.macs_and_parameters(everything)
        shares = zip((self._budget.macs, self._budget.params), dense, strict=True)
        relative = [float("inf") if v is None else v * cost if v <= 1 else float(v) for v, cost in shares]
        return (*relative, *(float(getattr(self._budget, name)) for name in self.names[2:]))

    def _scale(self, name: str) -> float:
        """What one second of latency is in the budget's unit."""
        seconds = None if self._latency is None else self._latency.audio_seconds
        if name == "rtf" and seconds is None:
            raise BudgetError(
                "a budget of rtf needs a profile that knows the sample rate: profile(..., sample_rate=8000)"
            )
        return 1000.0 if name == "latency_ms" else 1 / (seconds or 1.0)


def shown(name: str, cost: float) -> str:
    """A cost with its unit."""
    match name:
        case "latency_ms":
            return f"{cost:.3g} ms"
        case "rtf":
            return f"a real-time factor of {cost:.3g}"
        case _:
            return f"{cost:,.0f} {name}"


def without_latency(graph: DependencyGraph, budget: Budget, profile: LatencyProfile | None) -> Budget:
    """A budget of MACs that asks for about as much, for criteria that weigh channels by MACs.

    Its MACs are those at which the network, with the same share of every group, just meets the budget.

    Raises:
        BudgetError: there is no profile.
        InputError: the profile is of another network.
    """
    if not budget.needs_profile:
        return budget
    costs = Costs(graph, budget, None if profile is None else LatencyModel(graph, profile))
    limits = costs.limits(_uniform(graph, 1.0))
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        fits = all(cost <= limit for cost, limit in zip(costs(_uniform(graph, middle)), limits, strict=True))
        low, high = (middle, high) if fits else (low, middle)
    macs = costs(_uniform(graph, low))[0] / max(costs(_uniform(graph, 1.0))[0], 1)
    return replace(budget, latency_ms=None, rtf=None, macs=min(macs, 1.0))


def _uniform(graph: DependencyGraph, share: float) -> NDArray[np.bool_]:
    flags = [np.arange(group.width) < max(round(share * group.width), 1) for group in graph.groups]
    return np.concatenate([np.empty(0, bool), *flags])
