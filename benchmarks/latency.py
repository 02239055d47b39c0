"""Predicted against measured latency: makes ``benchmarks/results/latency.md``.

python -m benchmarks.latency [network ...]

The profile is made from five uniform widths. The plans that it is asked about are others; their networks are timed in
the same rounds as the profile's, so that what else the machine does meets both.
"""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.result_files import markdown_table, write_whole
from benchmarks.separators import SAMPLE_RATE, SEPARATORS
from prunegraph import Budget, DependencyGraph, LatencyProfile, PruningPlan, apply, build_graph, profile, score, select
from prunegraph.capture.example import call_arguments
from prunegraph.latency import LatencyModel
from prunegraph.profiling.rehearsals import Rehearsal
from prunegraph.profiling.stopwatch import DeviceStopwatch
from prunegraph.timing import seconds_of
from tests.zoo.networks import ZOO

RESULT = Path(__file__).parent / "results" / "latency.md"
ROWS = RESULT.with_suffix(".json")
LIBRARIES = ("torchaudio-ConvTasNet", "asteroid-DPRNNTasNet")
SECONDS = 2.0
MEASURE_FOR = 20.0
CPU = torch.device("cpu")

NOTES = """
Batch 1, float32, eager, inference mode. *predicted*: by a profile made from the same network with 100, 75, 70, 45 and
25 % of the channels in every group, and nothing else. *measured*: median over rounds of the pruned network's time by
the dense network's in the same round, times the dense network's median; *rounds* as many. *raw median*: without that
pairing. *uniform 0.4*: 40 % of every group; *l1*, *random*: half of the MACs by that criterion, all groups together;
*round 8*: widths rounded to multiples of 8; *random widths*: each group keeps 30 to 100 %.

Times are processor times of the one thread, since the machine was shared: what other programs took is not in them, but
caches and memory were shared with them all the same.

{machine}. Written by `python -m benchmarks.latency`.
"""


class Paired(DeviceStopwatch):
    """Times further networks in each round, right after the dense one."""

    def __init__(self, networks: list[nn.Module], example: Any) -> None:
        super().__init__(CPU, clock=time.thread_time)
        self.networks, self.args = networks, call_arguments(example)[0]
        self.rounds: list[list[float]] = []

    def forward(self, rehearsal: Rehearsal) -> float:
        taken = super().forward(rehearsal)
        if rehearsal.share == 1:
            others = [
                seconds_of(lambda network=network: network(*self.args), CPU, clock=time.thread_time)
                for network in self.networks
            ]
            self.rounds.append([taken, *others])
        return taken


def plans(graph: DependencyGraph) -> Mapping[str, PruningPlan]:
    """Plans that no profile is made from."""
    draw = np.random.default_rng(0)
    l1, random = score(graph, "l1"), score(graph, "random", seed=1)
    widths = {group.name: max(int(group.width * draw.uniform(0.3, 1)), 1) for group in graph.groups}
    return {
        "uniform 0.4": select(graph, l1, Budget(ratio=0.6)),
        "l1": select(graph, l1, Budget(macs=0.5)),
        "l1, round 8": select(graph, l1, Budget(macs=0.5, round_to=8)),
        "random": select(graph, random, Budget(macs=0.5)),
        "random widths": graph.plan({name: range(width) for name, width in widths.items()}),
    }


def opened(name: str) -> tuple[nn.Module, Any]:
    if name in SEPARATORS:
        torch.manual_seed(0)
        kind = SEPARATORS[name]
        return kind.build(**kind.sizes).eval(), torch.randn(1, 1, round(SECONDS * SAMPLE_RATE))
    return next(network for network in ZOO if network.name == name).build()


def rows_of(name: str) -> Iterator[dict[str, Any]]:
    model, example = opened(name)
    graph = build_graph(model, example)
    chosen = plans(graph)
    watch = Paired([apply(model, plan).eval() for plan in chosen.values()], example)
    table = profile(model, example, graph, sample_rate=SAMPLE_RATE, measure_for=MEASURE_FOR, stopwatch=watch)
    rounds = np.array(watch.rounds[1:])
    dense = graph.cost().macs
    yield _row(name, "dense, fitted", 1.0, table.widths[0].predicted, table.widths[0].median, rounds[:, 0])
    predicted = LatencyModel(graph, table)
    for number, (label, plan) in enumerate(chosen.items(), start=1):
        measured = float(np.median(rounds[:, number] / rounds[:, 0])) * table.widths[0].median
        share = graph.cost(plan).macs / dense
        yield _row(name, label, share, predicted.of_plan(plan), measured, rounds[:, number])
    print(f"{name}: the fit's greatest error {table.greatest_error:.1%}, {_blocks(table)}")


def _row(name: str, plan: str, macs: float, predicted: float, measured: float, raw: Any) -> dict[str, Any]:
    return {
        "network": name,
        "plan": plan,
        "macs": macs,
        "predicted": predicted,
        "measured": measured,
        "raw": float(np.median(raw)),
        "rounds": len(raw),
    }


def _blocks(table: LatencyProfile) -> str:
    slow = [op for op in table.ops if op.per_mac]
    return f"blocks of {dict(sorted({op.op: op.block for op in slow}.items()))}"


def table_of(rows: list[Mapping[str, Any]]) -> str:
    head = ("network", "plan", "MACs", "predicted", "measured", "error", "raw median", "rounds")
    others = [row for row in rows if row["plan"] != "dense, fitted"]
    errors = np.abs([row["predicted"] / row["measured"] - 1 for row in others])
    summary = (
        f"{len(errors)} plans of {len({row['network'] for row in rows})} networks, none of them fitted to: mean error "
        f"{errors.mean():.1%}, greatest {errors.max():.1%}, {np.mean(errors < 0.1):.0%} within 10 %."
    )
    lines = markdown_table(head, map(_cells, rows))
    return f"# Predicted and measured latency\n\n{summary}\n\n{lines}\n{NOTES.format(machine=_machine())}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    error = row["predicted"] / row["measured"] - 1
    times = [f"{1000 * row[name]:.1f} ms" for name in ("predicted", "measured")]
    raw = f"{1000 * row['raw']:.1f} ms"
    return [row["network"], row["plan"], f"{row['macs']:.0%}", *times, f"{error:+.1%}", raw, str(row["rounds"])]


def _machine() -> str:
    known = Path("/proc/cpuinfo")
    clocks = re.findall(r"cpu MHz\s*: ([\d.]+)", known.read_text()) if known.is_file() else []
    clock = f" at {float(clocks[0]):.0f} MHz" if clocks else ""
    threads = torch.get_num_threads()
    target = DeviceStopwatch(CPU).target
    return f"{target.device}{clock}, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}, " + (
        time.strftime("%Y-%m-%d", time.gmtime())
    )


def main() -> None:
    """Measures the named networks, or all, beside what was measured before; writes the table."""
    torch.set_num_threads(1)
    rows = json.loads(ROWS.read_text()) if ROWS.is_file() else []
    for name in sys.argv[1:] or [*LIBRARIES, *SEPARATORS]:
        rows = [row for row in rows if row["network"] != name] + list(rows_of(name))
        for path, text in ((ROWS, json.dumps(rows, indent=1) + "\n"), (RESULT, table_of(rows))):
            write_whole(path, text)
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
