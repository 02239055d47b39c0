"""Predicts how long a pruned network takes from a `LatencyProfile`, in closed form."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from prunegraph.cost.work import OpWork
from prunegraph.errors import InputError
from prunegraph.graph import DependencyGraph
from prunegraph.ir.latency import LatencyProfile
from prunegraph.ir.plan import PruningPlan


class LatencyModel:
    """Latency of any choice of channels; never falls when a channel is added.

    Args:
        graph: the network's dependency graph.
        profile: what its ops take on the device.

    Raises:
        InputError: the profile is of another network, or of other input shapes.
    """

    def __init__(self, graph: DependencyGraph, profile: LatencyProfile) -> None:
        self._work = op_work(graph)
        if profile.network != fingerprint(graph) or tuple(op.node for op in profile.ops) != self._work.nodes:
            raise InputError(
                "the latency profile was made for another network, or for inputs of another shape; make one for this "
                "network with prunegraph.profile"
            )
        self._graph, self._base, self._scale = graph, profile.base, profile.scale
        self._rates = np.array([(op.fixed, op.per_mac, op.per_byte) for op in profile.ops]).reshape(-1, 3)

    def seconds(self, kept: NDArray[np.bool_]) -> float:
        """Latency when channel i stays where ``kept[i]``, counted over all groups in their order."""
        return float(self._base + self._scale * (self._work(kept) * self._rates).sum())

    def of_plan(self, plan: PruningPlan | None = None) -> float:
        """Seconds of one forward pass of the example, dense or under a plan."""
        channels = {group.name: range(group.width) for group in self._graph.groups} if plan is None else plan.kept
        return self.seconds(self._graph.kept_channels(channels))


def op_work(graph: DependencyGraph) -> OpWork:
    """The work of each op call under any choice of channels."""
    return OpWork(graph.trace, graph.calls, graph.labels, graph.channel_of)


def fingerprint(graph: DependencyGraph) -> str:
    """Tells networks apart by their op calls, the shapes of all values, and their channel groups."""
    calls = [
        (node.name, str(node.target), str(graph.trace.values.get(node.name)))
        for node in graph.trace.graph.nodes
        if node.op != "get_attr"
    ]
    groups = [(group.name, group.width) for group in graph.groups]
    return hashlib.sha256(json.dumps([calls, groups]).encode()).hexdigest()


def fit_rates(work: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rates of one op, none of them negative, with the least relative squared errors.

    Args:
        work: columns 1, MACs and bytes; shape ``(widths, 3)``.
        times: seconds, shape ``(widths,)``.

    Returns:
        Seconds per call, per MAC and per byte; shape ``(3,)``.
    """
    return _relative_nnls(work, times)


def fit_whole(sums: Sequence[float], times: Sequence[float]) -> tuple[float, float]:
    """Base and scale that take sums over ops to times of the whole network, as closely as `fit_rates`."""
    base, scale = _relative_nnls(np.stack([np.ones(len(sums)), np.array(sums)], axis=1), np.array(times))
    return float(base), float(scale)


def _relative_nnls(columns: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns are brought to one scale: MACs are many and rates are small, which the solver takes for nothing."""
    relative = columns / np.maximum(times, 1e-12)[:, None]
    size = np.maximum(np.abs(relative).max(axis=0), 1e-300)
    found, _ = nnls(relative / size, np.ones(len(times)))
    return np.asarray(found / size, np.float64)
