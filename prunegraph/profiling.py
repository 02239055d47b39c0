"""`profile`: measures what each op of a network takes on its device, at several widths."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from prunegraph.capture.clone import named_tensors
from prunegraph.capture.example import Nested, normalise_example
from prunegraph.capture.tracer import capture
from prunegraph.cost.work import OpWork
from prunegraph.errors import InputError, UnsupportedModelError
from prunegraph.graph import DependencyGraph, build_graph
from prunegraph.ir.latency import LatencyProfile, MeasuredWidth, OpLatency
from prunegraph.ir.plan import PruningPlan
from prunegraph.ir.trace import Trace
from prunegraph.latency import Fit, fingerprint, fit, op_work
from prunegraph.surgery.slicing import apply
from prunegraph.timing import Target, seconds_of, synchronise, target_of

SHARES = (1.0, 0.75, 0.7, 0.45, 0.25)
"""Of the channels in every group, for the networks that are measured: round widths, and such as fill no block."""

_MINIMUM_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rehearsal:
    """A real network of one width, ready to be timed as a whole and op by op.

    Attributes:
        share: of the channels that stayed in every group.
        plan: which they are.
        network: what `apply` made of the plan, in evaluation mode.
        example: its inputs, taken apart.
        trace: its recorded forward pass; the calls are those of the dense network.
    tensors: its parameters and buffers, in the order of the record.
    """

    share: float
    plan: PruningPlan
    network: nn.Module
    example: Nested
    trace: Trace
    tensors: tuple[torch.Tensor, ...]

    @property
    def program(self) -> fx.GraphModule:
        """The record as a function of `operands`."""
        root = nn.Module()
        for name, constant in self.trace.constants.items():
            root.register_buffer(name, constant, persistent=False)
        return fx.GraphModule(root, self.trace.graph)

    def operands(self) -> list[torch.Tensor]:
        """Tensors and inputs, flat; copies of what a forward pass may write."""
        pairs = zip(self.tensors, self.trace.tensors.values(), strict=True)
        tensors = [tensor if spec.is_parameter else tensor.clone() for tensor, spec in pairs]
        return [*tensors, *(tensor.clone() for tensor in self.example.tensors)]


class Stopwatch(Protocol):
    """Takes times; the real one is `DeviceStopwatch`."""

    @property
    def target(self) -> Target:
        """Where the times are taken."""

    def forward(self, rehearsal: Rehearsal) -> float:
        """Seconds of one forward pass of the whole network."""

    def nodes(self, rehearsal: Rehearsal) -> Mapping[str, float]:
        """Seconds of each op call of one forward pass, by node name."""


class DeviceStopwatch:
    """Times on the device on which the network lies, with the threads that torch has.

    Args:
        device: where the network lies.
        cuda_graphs: whether whole networks run as one CUDA graph.
    """

    def __init__(self, device: torch.device, *, cuda_graphs: bool = False) -> None:
        self._device = device
        self.target = target_of(device, cuda_graphs=cuda_graphs)

    def forward(self, rehearsal: Rehearsal) -> float:
        """Seconds until the outputs are there."""
        args, kwargs = rehearsal.example.rebuild(rehearsal.example.tensors)
        return seconds_of(lambda: rehearsal.network(*args, **kwargs), self._device)

    def nodes(self, rehearsal: Rehearsal) -> Mapping[str, float]:
        """Seconds of each call within a replay of the whole record: caches are as warm as in the running network."""
        run = (_TimedOnGpu if self._device.type == "cuda" else _TimedOnCpu)(rehearsal.program)
        run.run(*rehearsal.operands())
        synchronise(self._device)
        return run.seconds()


class _TimedOnCpu(fx.Interpreter):
    """Runs a record call by call, noting the time of each."""

    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__(program)
        self._times: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        target: Any = n.target
        started = time.perf_counter()
        result = target(*args, **kwargs)
        self._times[n.name] = time.perf_counter() - started
        return result

    def seconds(self) -> Mapping[str, float]:
        return self._times


class _TimedOnGpu(fx.Interpreter):
    """The same on a GPU, between events; the GPU sleeps first, so that it never waits for the next launch."""

    _CALLS_AHEAD = 200
    _SLEEP_CYCLES = 50_000_000

    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__(program)
        self._events: dict[str, tuple[torch.cuda.Event, torch.cuda.Event]] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        if len(self._events) % self._CALLS_AHEAD == 0:
            torch.cuda._sleep(self._SLEEP_CYCLES)
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        result = super().run_node(n)
        after.record()
        self._events[n.name] = before, after
        return result

    def seconds(self) -> Mapping[str, float]:
        return {name: before.elapsed_time(after) / 1000 for name, (before, after) in self._events.items()}


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
    rehearsals = _rehearsals(model, graph, example_inputs)
    whole, calls = _measured(rehearsals, stopwatch, measure_for)
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


def _rehearsals(model: nn.Module, graph: DependencyGraph, example_inputs: Any) -> list[Rehearsal]:
    """The dense network and those narrower ones that run the same ops."""
    plans = [(share, plan) for share in SHARES if (plan := _uniform(graph, share)) is not None]
    found = [r for share, plan in plans if (r := _rehearsal(model, graph, example_inputs, share, plan)) is not None]
    if len(found) < 2:
        raise UnsupportedModelError(
            "no narrower network runs the same ops as this one, so that nothing tells how its latency falls"
        )
    return found


def _uniform(graph: DependencyGraph, share: float) -> PruningPlan | None:
    """The same share of every group, at least one channel; None where that would turn a branch in the code."""
    kept = {group.name: range(max(round(share * group.width), 1)) for group in graph.groups}
    return None if graph.turned_branch({name: list(channels) for name, channels in kept.items()}) else graph.plan(kept)


def _rehearsal(
    model: nn.Module, graph: DependencyGraph, example_inputs: Any, share: float, plan: PruningPlan
) -> Rehearsal | None:
    network = apply(model, plan).eval()
    trace = capture(network, example_inputs)
    if _targets(trace) != _targets(graph.trace):
        return None
    tensors = named_tensors(network)
    return Rehearsal(
        share=share,
        plan=plan,
        network=network,
        example=normalise_example(example_inputs),
        trace=trace,
        tensors=tuple(tensors[spec.name].detach() for spec in trace.tensors.values()),
    )


def _targets(trace: Trace) -> list[tuple[str, str]]:
    return [(node.name, str(node.target)) for node in trace.graph.nodes]


def _measured(
    rehearsals: Sequence[Rehearsal], stopwatch: Stopwatch, measure_for: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds of whole networks, shape ``(rounds, widths)``, and of their calls, ``(rounds, widths, calls)``.

    The first round warms up and does not count. What slowed a whole round down is divided out.
    """
    rounds: list[list[tuple[float, list[float]]]] = []
    spent = 0.0
    with torch.inference_mode():
        while len(rounds) <= _MINIMUM_ROUNDS or spent < measure_for:
            rounds.append([(stopwatch.forward(r), list(stopwatch.nodes(r).values())) for r in rehearsals])
            spent += sum(forward + sum(calls) for forward, calls in rounds[-1])
    whole = np.array([[forward for forward, _ in found] for found in rounds[1:]])
    calls = np.array([[times for _, times in found] for found in rounds[1:]])
    slowness = whole.sum(axis=1) + calls.sum(axis=(1, 2))
    slowness /= np.median(slowness)
    return whole / slowness[:, None], calls / slowness[:, None, None]


def _op_latencies(work: OpWork, found: Fit) -> Iterator[OpLatency]:
    fitted = zip(work.nodes, work.ops, found.blocks.tolist(), found.rates.tolist(), strict=True)
    for node, op, block, (fixed, per_mac, per_byte) in fitted:
        yield OpLatency(node=node, op=op, block=block, fixed=fixed, per_mac=per_mac, per_byte=per_byte)


def _measured_width(share: float, times: NDArray[np.float64], predicted: float) -> MeasuredWidth:
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
    return MeasuredWidth(share=share, median=median, spread=high - low, predicted=float(predicted))
