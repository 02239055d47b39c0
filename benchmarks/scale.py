"""Time and memory of each stage on networks of 1 G parameters; writes ``benchmarks/results/scale.md``.

    python -m benchmarks.scale

Each network is measured in a process of its own. Where there is a GPU, surgery is measured on it too.
"""

import gc
import multiprocessing
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import prunegraph
from benchmarks.large_separator import STRIDE, LargeSeparator
from benchmarks.memory import HostCopies, memory_mb
from benchmarks.result_files import markdown_table, write_whole
from prunegraph import Budget, PruningPlan
from prunegraph.capture.tracer import capture
from prunegraph.graph import analyse
from prunegraph.timing import device_name, seconds_of

RESULT = Path(__file__).parent / "results" / "scale.md"
FRAMES = 8
HALF = Budget(macs=0.5)
T = TypeVar("T")

STAGES = ("capture", "analysis", "scoring", "selection", "surgery")
PLANNING = STAGES[:4]
HEAD = (
    "network",
    "parameters",
    "weights",
    "nodes",
    "groups",
    *STAGES,
    "capture to selection",
    "peak to selection",
    "peak with surgery",
    "forward",
)
GPU_HEAD = ("network", "weights", "seconds", "peak", "peak / weights", "copied to the host")

NOTES = """
Seconds of one run, batch 1, {frames} frames, `l1`, half of the MACs; *capture to selection* is the sum of these stages.
In brackets: seconds that the processor worked for them, fewer where other work shared the machine. *peak*: all memory
of the process at its highest since it began, in GB of 10^9 bytes: Python, torch, the network, and what the stages add.
Capture runs a copy of the network, since a forward pass may write to weights: float32 needs its 4 GB twice.

{machine}. Written by `python -m benchmarks.scale`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network of about 1 G parameters.

    Attributes:
        blocks: blocks of a `LargeSeparator`.
        width: its width.
        dtype: element type of its weights.
    """

    blocks: int
    width: int
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.blocks} blocks of width {self.width:,}, {str(self.dtype).removeprefix('torch.')}"

    def build(self, device: str) -> tuple[nn.Module, Tensor]:
        """The network and an example."""
        torch.set_num_threads(1)
        torch.set_default_dtype(self.dtype)
        with torch.device(device):
            return LargeSeparator(blocks=self.blocks, width=self.width).eval(), torch.randn(1, 1, FRAMES * STRIDE)


CASES = (
    Case(blocks=26, width=1024, dtype=torch.bfloat16),
    Case(blocks=101, width=512, dtype=torch.bfloat16),
    Case(blocks=26, width=1024, dtype=torch.float32),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Seconds that passed, and those in which the processor worked for this process."""

    passed: float
    worked: float

    def __str__(self) -> str:
        return f"{self.passed:.1f} ({self.worked:.1f})"


def timed(stage: Callable[[], T]) -> tuple[T, Clock]:
    """The result of a stage and its seconds."""
    passed, worked = time.perf_counter(), time.process_time()
    result = stage()
    return result, Clock(passed=time.perf_counter() - passed, worked=time.process_time() - worked)


def measure(case: Case) -> Mapping[str, Any]:
    """Clocks of all stages on the CPU, first in their process, and its peaks."""
    warnings.simplefilter("ignore")
    model, example = case.build("cpu")
    found: dict[str, Any] = {}
    trace, found["capture"] = timed(lambda: capture(model, example))
    graph, found["analysis"] = timed(lambda: analyse(model, trace))
    scores, found["scoring"] = timed(lambda: prunegraph.score(graph, criterion="l1"))
    plan, found["selection"] = timed(lambda: prunegraph.select(graph, scores, HALF))
    found["planned_mb"] = memory_mb("VmHWM")
    _, found["surgery"] = timed(lambda: prunegraph.apply(model, plan))
    found["cut_mb"] = memory_mb("VmHWM")
    with torch.no_grad():
        _, found["forward"] = timed(lambda: model(example))
    found |= {"nodes": len(trace.graph.nodes), "groups": len(graph.groups)}
    return found | {"parameters": sum(p.numel() for p in model.parameters()), "bytes": bytes_of(model)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surgery:
    """Surgery on a GPU: bytes of the weights, bytes allocated at most, bytes brought to the host, and its seconds."""

    weights: int
    peak: int
    to_host: int
    seconds: float


def measure_on_gpu(case: Case) -> Surgery:
    """Surgery on the network on the GPU, in a new process."""
    warnings.simplefilter("ignore")
    model, example = case.build("cuda")
    return surgery_on_gpu(model, plan_for(model, example))


def plan_for(model: nn.Module, example: Tensor) -> PruningPlan:
    """The plan that keeps half of the MACs."""
    graph = prunegraph.build_graph(model, example)
    return prunegraph.select(graph, prunegraph.score(graph, criterion="l1"), HALF)


def surgery_on_gpu(model: nn.Module, plan: PruningPlan) -> Surgery:
    """Measures surgery; the peak counts all that the process holds on the GPU, the network among it."""
    gc.collect()
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats(device)
    with HostCopies() as copies:
        seconds = seconds_of(lambda: prunegraph.apply(model, plan), device)
    peak = torch.cuda.max_memory_allocated(device)
    return Surgery(weights=bytes_of(model), peak=peak, to_host=copies.bytes, seconds=seconds)


def bytes_of(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def in_new_process(function: Callable[[Case], T], case: Case) -> T:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, case).result()


def report(cases: Sequence[Case]) -> str:
    """All of the Markdown file."""
    parts = ["# Time and memory on 1 G parameters", markdown_table(HEAD, (_row(case) for case in cases))]
    if torch.cuda.is_available():
        parts += ["## Surgery on a GPU", markdown_table(GPU_HEAD, (_gpu_row(case) for case in cases))]
    return "\n\n".join((*parts, NOTES.format(frames=FRAMES, machine=_machine()).strip("\n"))) + "\n"


def _row(case: Case) -> list[str]:
    found = in_new_process(measure, case)
    planning = [found[stage] for stage in PLANNING]
    total = Clock(passed=sum(c.passed for c in planning), worked=sum(c.worked for c in planning))
    counts = [f"{found['parameters'] / 1e6:,.0f} M", f"{found['bytes'] / 1e9:.2f} GB", f"{found['nodes']:,}"]
    clocks = [str(found[stage]) for stage in STAGES]
    peaks = [f"{found[key] / 1e3:.2f} GB" for key in ("planned_mb", "cut_mb")]
    return [str(case), *counts, f"{found['groups']:,}", *clocks, str(total), *peaks, str(found["forward"])]


def _gpu_row(case: Case) -> list[str]:
    found = in_new_process(measure_on_gpu, case)
    sizes = [f"{found.weights / 1e9:.2f} GB", f"{found.seconds:.2f}", f"{found.peak / 1e9:.2f} GB"]
    return [str(case), *sizes, f"{found.peak / found.weights:.2f}", f"{found.to_host} B"]


def _machine() -> str:
    gpu = device_name(torch.device("cuda")) if torch.cuda.is_available() else "no GPU"
    processor = device_name(torch.device("cpu"))
    return f"{processor}, one thread, {gpu}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def main() -> None:
    """Measures and writes the table."""
    text = report(CASES)
    write_whole(RESULT, text)
    print(text)


if __name__ == "__main__":
    main()
