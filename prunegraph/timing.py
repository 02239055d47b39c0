"""How long calls take: warm, without gradients, waiting for the device, the calls in turns."""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunegraph.errors import InputError

_MINIMUM_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where times were taken.

    Attributes:
        device: name of the processor or the graphics card.
        threads: of torch on the CPU.
        torch: its version.
        cuda_graphs: whether the network ran as one CUDA graph.
    """

    device: str
    threads: int
    torch: str
    cuda_graphs: bool = False

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.device}, {threads}, torch {self.torch}{', CUDA graphs' if self.cuda_graphs else ''}"


def target_of(device: torch.device, *, cuda_graphs: bool = False) -> Target:
    """The device of this process as it is set up now."""
    return Target(
        device=device_name(device), threads=torch.get_num_threads(), torch=torch.__version__, cuda_graphs=cuda_graphs
    )


def device_name(device: torch.device) -> str:
    """Name of the graphics card, or of the processor where the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return (_processor() if device.type == "cpu" else "") or device.type


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor()


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Torch uses so many threads on the CPU, and as many as before afterwards."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of(
    call: Callable[[], Any], device: torch.device, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Time of one call until its results are there."""
    synchronise(device)
    started = clock()
    call()
    synchronise(device)
    return clock() - started


def interleaved(
    calls: Sequence[Callable[[], Any]], device: torch.device, *, measure_for: float
) -> tuple[tuple[float, ...], ...]:
    """Times the calls in turns, so that what disturbs the machine meets all of them alike.

    Args:
        calls: each is run once beforehand, to warm up.
        device: what to wait for.
        measure_for: seconds in all; there are at least three rounds.

    Returns:
        Seconds of each round, per call.

    Raises:
        InputError: ``measure_for`` is not positive.
    """
    if measure_for <= 0:
        raise InputError(f"{measure_for=} must be positive")
    times: list[list[float]] = [[] for _ in calls]
    with torch.inference_mode():
        for call in calls:
            call()
        started = time.perf_counter()
        while len(times[0]) < _MINIMUM_ROUNDS or time.perf_counter() - started < measure_for:
            for call, taken in zip(calls, times, strict=True):
                taken.append(seconds_of(call, device))
    return tuple(map(tuple, times))
