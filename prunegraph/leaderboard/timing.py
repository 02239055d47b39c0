"""How fast the networks of finished cells are: in one process with nothing beside it, in turns with the dense one."""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from prunegraph.evaluation.separation import evaluating
from prunegraph.evaluation.speed import Speed, measure_speed
from prunegraph.ir.plan import PruningPlan
from prunegraph.leaderboard.laboratory import Laboratory, Separator, bytes_of, torch_threads
from prunegraph.leaderboard.results import Quality, Timing
from prunegraph.leaderboard.study import Cell
from prunegraph.surgery.slicing import apply

SECONDS = 4.0
"""Duration of the signal."""

TURNS = 5
"""How often dense and pruned network take turns, so that neither meets the quieter machine."""


def time_cell(laboratory: Laboratory, cell: Cell, quality: Quality) -> Timing:
    """Times a cell's network against the dense one; weights do not matter, so those of the dense network serve.

    The dense network itself is timed against itself: how far its speed-up is from 1 is what the others' may err by.
    """
    study = laboratory.study
    separator = laboratory.open(cell.network)
    pruned = separator.network
    if quality.plan is not None:
        pruned = apply(separator.network, PruningPlan.from_json(quality.plan))
    each = study.effort.timing_s / (2 * TURNS)
    with torch_threads(study.threads):
        turns = [
            (_speed(laboratory, separator, separator.network, each), _speed(laboratory, separator, pruned, each))
            for _ in range(TURNS)
        ]
        peak = bytes_of(pruned) + activation_peak(pruned, _signal(laboratory, separator))
    latency = statistics.median(speed.latency for _, speed in turns)
    return Timing(
        latency_ms=1000 * latency,
        latency_p95_ms=1000 * max(speed.latency_p95 for _, speed in turns),
        speedup=statistics.median(dense.latency / speed.latency for dense, speed in turns),
        rtf=latency / SECONDS,
        peak_memory_bytes=peak,
        threads=turns[0][0].threads,
        timed_on=turns[0][0].device,
    )


def _speed(laboratory: Laboratory, separator: Separator, network: nn.Module, measure_for: float) -> Speed:
    rate, dims = laboratory.speech.sample_rate, separator.dims
    return measure_speed(network, rate, seconds=SECONDS, measure_for=measure_for, input_dims=dims)


def _signal(laboratory: Laboratory, separator: Separator) -> Tensor:
    signal = torch.randn(
        1, 1, round(SECONDS * laboratory.speech.sample_rate), generator=torch.Generator().manual_seed(0)
    )
    return separator.shaped((signal, signal))[0]  # type: ignore[no-any-return]


def activation_peak(network: nn.Module, signal: Tensor) -> int:
    """Most bytes that torch's allocator holds during one pass beyond what it held before it."""
    with evaluating(network), torch.inference_mode():
        network(signal)  # lazily made buffers and plans are no part of the next pass
        return _on_cuda(network, signal) if signal.is_cuda else _on_cpu(network, signal)


def _on_cuda(network: nn.Module, signal: Tensor) -> int:
    before = torch.cuda.memory_allocated(signal.device)
    torch.cuda.reset_peak_memory_stats(signal.device)
    network(signal)
    return torch.cuda.max_memory_allocated(signal.device) - before


def _on_cpu(network: nn.Module, signal: Tensor) -> int:
    """By torch's profiler, which records every allocation, those within operators too."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with _quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            network(signal)
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes):
        held += change
        peak = max(peak, held)
    return peak


@contextmanager
def _quiet() -> Iterator[None]:
    """The profiler's library logs to standard error, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
