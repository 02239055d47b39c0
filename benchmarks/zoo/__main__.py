"""Prunes every network of the zoo, prints one table and writes it to ``benchmarks/results/zoo.md``.

``python -m benchmarks.zoo [name ...]``; each network is written down when it is done, in place of its earlier row, so
that an interrupted run can be followed by one of the networks that it lacks. Torch-Pruning's column comes from
``peers.json``, which ``python -m benchmarks.peers`` writes.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.peers.apart import Outcome as PeerOutcome
from benchmarks.peers.libraries import TORCH_PRUNING
from benchmarks.peers.record import read_record
from benchmarks.result_files import markdown_table, write_whole
from benchmarks.zoo.subjects import NETWORKS
from prunegraph.capture.tracer import capture
from prunegraph.graph import analyse
from tests.zoo.check import PLANS, Outcome, check_plan, examine
from tests.zoo.networks import ZooNetwork, quiet

RESULTS = Path(__file__).parents[1] / "results"

COLUMNS = (
    "network",
    "parameters",
    "graph nodes",
    "groups",
    "prunable",
    "capture",
    "analysis",
    "float32",
    "float64",
    "MACs left",
    "Torch-Pruning",
)

WIDTH = 140
"""Narrower terminals show the table with its lines broken."""

NOTES = """
Random weights, batch 1. *prunable*: share of the parameters in tensors that can shrink. *capture*: recording one
forward pass; *analysis*: everything from there to the channel groups, one thread. Each network is pruned by three
plans: uniform ratios 0.3 and 0.5 by L1 magnitude, and a random share of random channels per group. *float32*,
*float64*: the largest difference between an output of a pruned network and of its exact masked program, relative to the
output's largest entry. *MACs left*: of the three plans, in this order. Forward, backward, kept slices, recounted MACs
and parameters are checked for each. *Torch-Pruning*: {peer}.

Written by `make zoo`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network's line of the table."""

    network: str
    parameters: int
    nodes: int
    groups: int
    coverage: float
    capture_s: float
    analysis_s: float
    single: tuple[Outcome, ...]
    double: tuple[Outcome, ...]

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Row":
        """The row that was written down as JSON."""
        outcomes = {name: tuple(Outcome(**item) for item in stored[name]) for name in ("single", "double")}
        return cls(**{**stored, **outcomes})

    def cells(self, peer: PeerOutcome | None) -> tuple[str, ...]:
        """The row's text, in the order of `COLUMNS`."""
        return (
            self.network,
            f"{self.parameters / 1e6:.2f} M",
            f"{self.nodes:,}",
            str(self.groups),
            f"{self.coverage:.1%}",
            f"{self.capture_s:.1f} s",
            f"{self.analysis_s:.1f} s",
            f"{max(outcome.difference for outcome in self.single):.0e}",
            f"{max(outcome.difference for outcome in self.double):.0e}",
            " / ".join(f"{outcome.macs:.0%}" for outcome in self.single),
            "not run" if peer is None else peer.status,
        )


def measure(network: ZooNetwork) -> Row:
    """Checks a network in both precisions and all plans."""
    capture_s, analysis_s = timed_analysis(network)
    subject, precise = examine(network), examine(network, torch.float64)
    return Row(
        network=network.name,
        parameters=sum(parameter.numel() for parameter in subject.model.parameters()),
        nodes=len(subject.graph.trace.graph.nodes),
        groups=len(subject.graph.groups),
        coverage=subject.graph.coverage,
        capture_s=capture_s,
        analysis_s=analysis_s,
        single=tuple(check_plan(subject, plan) for plan in PLANS),
        double=tuple(check_plan(precise, plan) for plan in PLANS),
    )


def timed_analysis(network: ZooNetwork) -> tuple[float, float]:
    """Returns the seconds that capture takes and those of the analysis after it."""
    model, inputs = network.build()
    with quiet():
        model(*inputs)
        start = time.perf_counter()
        trace = capture(model, inputs)
        captured = time.perf_counter()
        analyse(model, trace)
    return captured - start, time.perf_counter() - captured


def table_of(rows: Sequence[tuple[str, ...]]) -> Table:
    """The table as it is shown on a terminal."""
    table = Table(title="Every network, unedited, pruned and proved")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in {"network", "Torch-Pruning"} else "right")
    for row in rows:
        table.add_row(*row)
    return table


def markdown_of(rows: Sequence[tuple[str, ...]], peer: str) -> str:
    """The table as it is committed."""
    return f"# The zoo\n\n{markdown_table(COLUMNS, rows)}\n{NOTES.format(peer=peer)}"


def read_rows(path: Path) -> dict[str, Row]:
    """The rows of earlier runs by network, in the zoo's order."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    return {network.name: Row.of(stored[network.name]) for network in NETWORKS if network.name in stored}


def choose(names: Sequence[str]) -> list[ZooNetwork]:
    """The networks of these names, or all if none is given."""
    if unknown := set(names) - {network.name for network in NETWORKS}:
        sys.exit(f"not in the zoo: {', '.join(sorted(unknown))}")
    return [network for network in NETWORKS if not names or network.name in names]


def main() -> None:
    """Runs the networks that the command line names, or all."""
    chosen = choose(sys.argv[1:])
    record = read_record()
    peers = record.of(TORCH_PRUNING.name)
    console = Console(width=WIDTH)
    for network in track(chosen, description="Pruning the zoo", console=console):
        rows = {**read_rows(RESULTS / "zoo.json"), network.name: measure(network)}
        write_whole(RESULTS / "zoo.json", json.dumps({name: asdict(row) for name, row in rows.items()}, indent=1))
        console.print(f"{network.name}: done")
    cells = [row.cells(peers.get(row.network)) for row in read_rows(RESULTS / "zoo.json").values()]
    console.print(table_of(cells))
    write_whole(RESULTS / "zoo.md", markdown_of(cells, record.setting(TORCH_PRUNING.name)))
    console.print(f"written to {RESULTS / 'zoo.md'}")


if __name__ == "__main__":
    main()
