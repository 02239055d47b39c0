"""Predicts how long a pruned network takes from a `LatencyProfile`, in closed form."""

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from prunegraph.cost.work import OpWork
from prunegraph.errors import InputError
from prunegraph.graph import DependencyGraph
from prunegraph.ir.latency import LatencyProfile
from prunegraph.ir.plan import PruningPlan

BLOCKS = (1, 4, 8, 16, 32)
"""Numbers of channels that a device may do at once."""


class LatencyModel:
    """Latency of any choice of channels; never falls when a channel is added.

    Args:
        graph: the network's dependency graph.
        profile: what its ops take on the device.

    Raises:
        InputError: the profile is none, or of another network, or of other input shapes.
    """

    def __init__(self, graph: DependencyGraph, profile: LatencyProfile) -> None:
        if not isinstance(profile, LatencyProfile):
            raise InputError(f"expected a LatencyProfile, got {profile!r}; LatencyProfile.load reads a saved one")
        self._work = op_work(graph)
        if profile.network != fingerprint(graph) or tuple(op.node for op in profile.ops) != self._work.nodes:
            raise InputError(
                "the latency profile was made for another network, or for inputs of another shape; make one for this "
                "network with prunegraph.profile"
            )
        self._graph, self._profile = graph, profile
        rates = np.array([(op.fixed, op.per_mac, op.per_byte) for op in profile.ops]).reshape(-1, 3)
        blocks = np.array([op.block for op in profile.ops])
        self._rates = {int(block): rates * (blocks == block)[:, None] for block in np.unique(blocks)}

    @property
    def audio_seconds(self) -> float | None:
        """Duration of the example's audio, where the profile knows it."""
        return self._profile.seconds

    def seconds(self, kept: NDArray[np.bool_]) -> float:
        """Latency when channel i stays where ``kept[i]``, counted over all groups in their order."""
        of_ops = sum((self._work(kept, block=block) * rates).sum() for block, rates in self._rates.items())
        return float(self._profile.base + self._profile.scale * of_ops)

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """What describes measured times best.

    Attributes:
        blocks: of each op call, see `OpLatency`; shape ``(calls,)``.
        rates: seconds per call, per MAC and per byte of each op call; shape ``(calls, 3)``.
        base: seconds of a forward pass that are no op's.
        scale: of the sum over the ops.
        predicted: seconds of the whole network at each width.
    """

    blocks: NDArray[np.int64]
    rates: NDArray[np.float64]
    base: float
    scale: float
    predicted: NDArray[np.float64]


def fit(work: OpWork, kept: Sequence[NDArray[np.bool_]], calls: NDArray[np.float64], whole: NDArray[np.float64]) -> Fit:
    """Rates of every op, none of them negative, with the least squared relative errors.

    Calls of the same op share a block: the one that leaves the least errors. What differs between calls that do the
    same is chance, so that each gets their mean.

    Args:
        work: of each op call.
        kept: the channels that stay, per measured width.
        calls: seconds of each op call, shape ``(widths, calls)``.
        whole: seconds of the whole network, shape ``(widths,)``.
    """
    done = np.stack([[work(channels, block=block) for channels in kept] for block in BLOCKS])
    calls = _averaged(calls, [(kind, done[0, :, call].tobytes()) for call, kind in enumerate(work.kinds)])
    rates = np.stack([fit_rates(of_block, calls) for of_block in done])
    predicted = np.einsum("bwcf,bcf->bwc", done, rates)
    best = _best_block(work.ops, ((predicted - calls) ** 2).sum(axis=1))
    each = np.arange(len(work.ops))
    sums = predicted[best, :, each].sum(axis=0)
    base, scale = map(float, _relative_nnls(np.stack([np.ones(len(sums)), sums], axis=1), whole))
    blocks = np.array(BLOCKS)[best]
    return Fit(blocks=blocks, rates=rates[best, each], base=base, scale=scale, predicted=base + scale * sums)


def _averaged(calls: NDArray[np.float64], kinds: Sequence[Hashable]) -> NDArray[np.float64]:
    """The mean time of all calls of one kind in the place of each; shape ``(widths, calls)``."""
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    number = np.array([numbers[kind] for kind in kinds], np.int64)
    sums = [np.bincount(number, of_width) for of_width in calls]
    return np.asarray((np.array(sums) / np.bincount(number))[:, number], np.float64)


def _best_block(ops: Sequence[str], errors: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each call the number of its op's best block; errors of shape ``(blocks, calls)``."""
    best = np.zeros(len(ops), np.int64)
    for op in set(ops):
        same = np.array([other == op for other in ops])
        best[same] = errors[:, same].sum(axis=1).argmin()
    return best


def fit_rates(work: NDArray[np.float64], calls: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds per call, per MAC and per byte; shape ``(calls, 3)``.

    Args:
        work: columns 1, MACs and bytes; shape ``(widths, calls, 3)``.
        calls: seconds, shape ``(widths, calls)``.
    """
    rates = [_relative_nnls(work[:, call], calls[:, call]) for call in range(calls.shape[1])]
    return np.array(rates).reshape(-1, 3)


def _relative_nnls(columns: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns are brought to one scale: MACs are many and rates are small, which the solver takes for nothing."""
    relative = columns / np.maximum(times, 1e-12)[:, None]
    size = np.maximum(np.abs(relative).max(axis=0), 1e-300)
    found, _ = nnls(relative / size, np.ones(len(times)))
    return np.asarray(found / size, np.float64)
