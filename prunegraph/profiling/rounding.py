"""`measure_rounding`: whether the device likes round numbers of channels, and which."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from prunegraph.capture.example import normalise_example
from prunegraph.errors import UnsupportedModelError
from prunegraph.graph import DependencyGraph, build_graph
from prunegraph.ir.channels import ChannelGroup
from prunegraph.ir.plan import PruningPlan
from prunegraph.latency import op_work
from prunegraph.profiling.rehearsals import rehearse
from prunegraph.profiling.stopwatch import DeviceStopwatch, Stopwatch, measured

ROUND_TO = (1, 2, 4, 8, 16, 32)
_SHARE = 5 / 8
"""Of the dense width: about where the measured widths lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedWidth:
    """Time of one op call at one width.

    Attributes:
        round_to: the greatest power of two (up to 32) of which the width is a multiple.
        width: number of channels.
        seconds: median time of the call.
    """

    round_to: int
    width: int
    seconds: float

    @property
    def per_channel(self) -> float:
        """Seconds per channel that was kept."""
        return self.seconds / self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingTable:
    """What rounding is worth on the network's most expensive op.

    Attributes:
        op: what is called.
        module: path of the module that calls it.
        group: the channel group that was narrowed.
        widths: one for each ``round_to``.
    """

    op: str
    module: str
    group: str
    widths: tuple[RoundedWidth, ...]

    @property
    def best(self) -> RoundedWidth:
        """The width with the least time per channel."""
        return min(self.widths, key=lambda row: row.per_channel)


def measure_rounding(
    model: nn.Module,
    example_inputs: Any,
    graph: DependencyGraph | None = None,
    *,
    measure_for: float = 10.0,
    stopwatch: Stopwatch | None = None,
) -> RoundingTable:
    """Times the op with the most MACs at nearly equal widths that are multiples of 1, 2, 4, 8, 16 and 32.

    Args:
        model: the network, on the device that counts; it is left untouched.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
        graph: the network's dependency graph, where it is there already.
        measure_for: seconds of measured time in all; there are at least five rounds.
        stopwatch: what takes the times, in place of the real one.

    Raises:
        UnsupportedModelError: no op has weights that can be pruned to such widths.
    """
    graph = build_graph(model, example_inputs) if graph is None else graph
    node, group = _representative(graph)
    plans = {step: _narrowed(graph, group, _width(group, step)) for step in ROUND_TO if step < group.width}
    made = [rehearse(model, graph, example_inputs, 1.0, plan) for plan in plans.values()]
    found = {step: each for step, each in zip(plans, made, strict=True) if each is not None}
    if stopwatch is None:
        stopwatch = DeviceStopwatch(normalise_example(example_inputs).tensors[0].device)
    work = op_work(graph)
    _, calls = measured(list(found.values()), stopwatch, measure_for)
    seconds = np.median(calls[:, :, work.nodes.index(node)], axis=0).tolist()
    return RoundingTable(
        op=work.ops[work.nodes.index(node)],
        module=graph.trace.sites[node].module,
        group=group.name,
        widths=tuple(
            RoundedWidth(round_to=step, width=_width(group, step), seconds=taken)
            for step, taken in zip(found, seconds, strict=True)
        ),
    )


def _representative(graph: DependencyGraph) -> tuple[str, ChannelGroup]:
    """The op call with the most MACs among those with prunable weights, and the widest group of these."""
    work = op_work(graph)
    macs = work(np.ones(sum(group.width for group in graph.groups), bool))[:, 1]
    inputs = {node.name: node.all_input_nodes for node in graph.trace.graph.nodes}
    for call in np.argsort(-macs, kind="stable"):
        names = {
            spec.name for node in inputs[work.nodes[call]] if (spec := graph.trace.tensors.get(node.name)) is not None
        }
        groups = [g for g in graph.groups if g.width > 1 and any(member.tensor in names for member in g.members)]
        if groups and macs[call]:
            return work.nodes[call], max(groups, key=lambda group: group.width)
    raise UnsupportedModelError("no op of this network that multiplies has weights that can be pruned")


def _width(group: ChannelGroup, step: int) -> int:
    """The odd multiple of ``step`` that is nearest to 5/8 of the channels: no multiple of anything rounder."""
    odd = range(step, group.width + 1, 2 * step)
    return min(odd, key=lambda width: abs(width - _SHARE * group.width))


def _narrowed(graph: DependencyGraph, group: ChannelGroup, width: int) -> PruningPlan:
    return graph.plan({group.name: range(width)})
