"""How fast a network is: real-time factor and latency."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from prunegraph.errors import InputError
from prunegraph.evaluation.separation import evaluating
from prunegraph.timing import interleaved, target_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Processing time of one signal, batch 1.

    Attributes:
        seconds: duration of the signal.
        latency: median processing time in seconds: how long after the last sample the estimates are there.
        latency_p95: its 95th percentile.
        runs: number of measurements.
        device: on which the network ran, by name.
        threads: of torch on the CPU.
    """

    seconds: float
    latency: float
    latency_p95: float
    runs: int
    device: str
    threads: int

    @property
    def real_time_factor(self) -> float:
        """Processing time per second of signal; below 1 the network keeps up."""
        return self.latency / self.seconds


def measure_speed(
    network: nn.Module,
    sample_rate: int,
    *,
    seconds: float = 4.0,
    measure_for: float = 2.0,
    input_dims: Literal[2, 3] = 3,
) -> Speed:
    """Times the network, warm and in evaluation mode, without gradients; waits for GPUs.

    Args:
        network: takes ``(1, 1, time)``; its training flags are left as they were.
        sample_rate: in Hz.
        seconds: duration of the signal.
        measure_for: how long to measure in seconds, after a warm-up; there are at least three runs.
        input_dims: 2 for a network that takes ``(1, time)``.

    Raises:
        InputError: a duration is not positive.
    """
    samples = round(seconds * sample_rate)
    if samples < 1 or measure_for <= 0:
        raise InputError(f"Durations must be positive, got {seconds=} at {sample_rate} Hz and {measure_for=}.")
    weight = next(network.parameters(), torch.empty(0))
    signal = torch.randn((1,) * (input_dims - 1) + (samples,), generator=torch.Generator().manual_seed(0))
    signal = signal.to(weight)
    with evaluating(network):
        (times,) = interleaved([lambda: network(signal)], weight.device, measure_for=measure_for)
    target = target_of(weight.device)
    return Speed(
        seconds=samples / sample_rate,
        latency=float(np.median(times)),
        latency_p95=float(np.quantile(times, 0.95)),
        runs=len(times),
        device=target.device,
        threads=target.threads,
    )
