"""`profile`: fits what each op of a network takes on its device, from real networks of several widths."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunegraph.capture.example import normalise_example
from prunegraph.cost.work import OpWork
from prunegraph.errors import InputError, UnsupportedModelError
from prunegraph.graph import DependencyGraph, build_graph
from prunegraph.ir.latency import LatencyProfile, MeasuredWidth, OpLatency
from prunegraph.ir.plan import PruningPlan
from prunegraph.latency import Fit, fingerprint, fit, op_work
from prunegraph.profiling.rehearsals import Rehearsal, on_cuda_graph, rehearse
from prunegraph.profiling.stopwatch import DeviceStopwatch, Stopwatch, measured

SHARES = (1.0, 0.75, 0.7, 0.45, 0.25)
"""Of the channels in every group, for the networks that are measured: round widths, and such as fill no block."""


def profile(
    model: nn.Module,
    example_inputs: Any,
    graph: DependencyGraph | None = None,
    *,
    sample_rate: int | None = None,
    cuda_graphs: bool = False,
    measure_for: float = 20.0,
    stopwatch: Stopwatch | None = None,
) -> LatencyProfile:
    """Measures what each op takes on the network's device, so that the latency of any plan can be told.

    Real networks with 100, 75, 70, 45 and 25 % of the channels in every group run in turns, whole and op by op, in
    evaluation mode without gradients. To the median time of each op a function ``fixed + a * MACs + b * bytes`` is
    fitted, to the whole networks' medians ``base + scale * sum``. What slows a whole round down, such as a neighbour's
    work, is divided out first; still, the table is right for a machine as busy as this one was.

    Args:
        model: the network, on the device that counts; it is left untouched.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments; the latency is that
            of a forward pass of inputs of this shape.
        graph: the network's dependency graph, where it is there already.
        sample_rate: of the first input's last dimension in Hz, for budgets of a real-time factor.
        cuda_graphs: whether the network is going to run as one CUDA graph, see `optimize`.
        measure_for: seconds of measured time in all; there are at least five rounds.
        stopwatch: what takes the times, in place of the real one.

    Raises:
        InputError: an option is out of range.
        UnsupportedModelError: CUDA graphs are wanted and the network is not on a GPU, or no narrower network runs the
            same ops.
        PrunegraphError: a stage of pruning to another width failed.
    """
    if measure_for <= 0 or (sample_rate is not None and sample_rate <= 0):
        raise InputError(f"{measure_for=} and {sample_rate=} must be positive")
    graph = build_graph(model, example_inputs) if graph is None else graph
    example = normalise_example(example_inputs)
    if stopwatch is None:
        stopwatch = DeviceStopwatch(example.tensors[0].device, cuda_graphs=cuda_graphs)
    rehearsals = _rehearsals(model, graph, example_inputs, cuda_graphs=cuda_graphs)
    whole, calls = measured(rehearsals, stopwatch, measure_for)
    work = op_work(graph)
    kept = [graph.kept_channels(rehearsal.plan.kept) for rehearsal in rehearsals]
    found = fit(work, kept, np.median(calls, axis=0), np.median(whole, axis=0))
    return LatencyProfile(
        target=stopwatch.target,
        network=fingerprint(graph),
        ops=tuple(_op_latencies(work, found)),
        base=found.base,
        scale=found.scale,
        seconds=None if sample_rate is None else example.tensors[0].shape[-1] / sample_rate,
        widths=tuple(
            _measured_width(rehearsal.share, times, predicted)
            for rehearsal, times, predicted in zip(rehearsals, whole.T, found.predicted, strict=True)
        ),
    )


def _rehearsals(model: nn.Module, graph: DependencyGraph, example_inputs: Any, *, cuda_graphs: bool) -> list[Rehearsal]:
    """The dense network and those narrower ones that run the same ops."""
    plans = [(share, plan) for share in SHARES if (plan := _uniform(graph, share)) is not None]
    made = [rehearse(model, graph, example_inputs, share, plan) for share, plan in plans]
    found = [each for each in made if each is not None]
    if len(found) < 2:
        raise UnsupportedModelError(
            "no narrower network runs the same ops as this one, so that nothing tells how its latency falls"
        )
    return [on_cuda_graph(each, example_inputs) for each in found] if cuda_graphs else found


def _uniform(graph: DependencyGraph, share: float) -> PruningPlan | None:
    """The same share of every group, at least one channel; None where that would turn a branch in the code."""
    kept = {group.name: list(range(max(round(share * group.width), 1))) for group in graph.groups}
    return None if graph.turned_branch(kept) else graph.plan(kept)


def _op_latencies(work: OpWork, found: Fit) -> Iterator[OpLatency]:
    fitted = zip(work.nodes, work.ops, found.blocks.tolist(), found.rates.tolist(), strict=True)
    for node, op, block, (fixed, per_mac, per_byte) in fitted:
        yield OpLatency(node=node, op=op, block=block, fixed=fixed, per_mac=per_mac, per_byte=per_byte)


def _measured_width(share: float, times: NDArray[np.float64], predicted: float) -> MeasuredWidth:
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
    return MeasuredWidth(share=share, median=median, spread=high - low, predicted=float(predicted))
