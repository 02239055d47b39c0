"""Takes times of networks, as a whole and op by op."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from prunegraph.profiling.rehearsals import Rehearsal
from prunegraph.timing import Target, seconds_of, synchronise, target_of

_MINIMUM_ROUNDS = 5


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
        clock: tells seconds; ``time.thread_time`` leaves out what other programs took of a shared CPU, but is right
            for one thread only. Ops on a GPU have its own clock.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        cuda_graphs: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device, self._clock = device, clock
        self.target = target_of(device, cuda_graphs=cuda_graphs)

    def forward(self, rehearsal: Rehearsal) -> float:
        """Seconds until the outputs are there."""
        args, kwargs = rehearsal.example.rebuild(rehearsal.example.tensors)
        return seconds_of(lambda: rehearsal.network(*args, **kwargs), self._device, clock=self._clock)

    def nodes(self, rehearsal: Rehearsal) -> Mapping[str, float]:
        """Seconds of each call within a replay of the whole record: caches are as warm as in the running network."""
        program, on_gpu = rehearsal.program, self._device.type == "cuda"
        run = _TimedOnGpu(program) if on_gpu else _TimedOnCpu(program, self._clock)
        run.run(*rehearsal.operands())
        synchronise(self._device)
        return run.seconds()


class _TimedOnCpu(fx.Interpreter):
    """Runs a record call by call, noting the time of each."""

    def __init__(self, program: fx.GraphModule, clock: Callable[[], float]) -> None:
        super().__init__(program)
        self._clock = clock
        self._times: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        target: Any = n.target
        started = self._clock()
        result = target(*args, **kwargs)
        self._times[n.name] = self._clock() - started
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
            torch.cuda._sleep(self._SLEEP_CYCLES)  # type: ignore[no-untyped-call]
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before.record()
        result = super().run_node(n)
        after.record()
        self._events[n.name] = before, after
        return result

    def seconds(self) -> Mapping[str, float]:
        return {name: before.elapsed_time(after) / 1000 for name, (before, after) in self._events.items()}


def measured(
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
