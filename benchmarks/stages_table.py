"""Makes ``benchmarks/results/stages.md`` from what ``make bench`` measured.

python -m benchmarks.stages_table .benchmarks/stages.json
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.result_files import markdown_table, write_whole

RESULT = Path(__file__).parent / "results" / "stages.md"
STAGES = ("forward", "capture", "analysis", "plan", "surgery", "verification")
HEAD = (
    "network",
    "nodes",
    *STAGES,
    "capture - 5 forward",
    "analysis to surgery",
    "their memory",
    "verification beside passes",
    "Torch-Pruning",
)
CURVE = "curve: "
CURVE_STAGES = STAGES[:-1]
CURVE_HEAD = ("network", "nodes", "groups", *CURVE_STAGES, "memory of all")

NOTES = """
Medians in seconds, batch 1. *capture - 5 forward*: what capture takes beyond five forward passes. *analysis to
surgery*: sum of these stages, and by how much they raised the memory of the process at most. *verification*: mostly
the passes of the masked program and of both networks, in eval and training mode and on other inputs, one of them
recorded, and a backward pass: the time of 12 to 33 forward passes, more where one takes a few milliseconds only.
*beside passes*: all else that it does, recording left out, which is a stage of its own.
*Torch-Pruning*: building its groups and pruning, where it finishes.

{machine}. Written by `make bench`.
"""


def tables(record: Mapping[str, Any]) -> str:
    """All of the Markdown file."""
    runs = record["benchmarks"]
    stages = {(run["group"], run["name"].split("[")[0].removeprefix("test_")): run for run in runs}
    networks = [group for group, name in stages if name == "capture"]
    parts = [
        "# Time and memory of each stage",
        markdown_table(HEAD, (list(_cells(network, stages)) for network in networks)),
        "## How they grow",
        markdown_table(CURVE_HEAD, _curves(runs)),
        "## A step of mask learning",
        markdown_table(("benchmark", "median", "figures"), _others(runs, networks)),
        NOTES.format(machine=_machine(record)),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _cells(network: str, stages: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    seconds = {name: run["stats"]["median"] for (group, name), run in stages.items() if group == network}
    figures = {name: run["extra_info"] for (group, name), run in stages.items() if group == network}
    own = ("analysis", "plan", "surgery")
    yield network
    yield f"{figures['capture']['nodes']:,}"
    yield from (f"{seconds[name]:.2f}" for name in STAGES)
    yield f"{max(seconds['capture'] - 5 * seconds['forward'], 0):.2f}"
    yield f"{sum(seconds[name] for name in own):.2f}"
    yield f"{max(figures[name]['peak_mb'] for name in own)} MB"
    yield f"{figures['verification']['beside passes']:.2f}"
    yield f"{seconds['torch_pruning']:.2f}" if "torch_pruning" in seconds else ""


def _curves(runs: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    points: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for run in runs:
        if run["group"].startswith(CURVE):
            stage, _, point = run["name"].removeprefix("test_curve_of_").partition("[")
            points.setdefault((run["group"], point.removesuffix("]")), {})[stage] = run
    for (_, point), stages in points.items():
        figures = stages["capture"]["extra_info"]
        seconds = [f"{stages[stage]['stats']['median']:.3f}" for stage in CURVE_STAGES]
        yield [point, f"{figures['nodes']:,}", str(figures["groups"]), *seconds, f"{figures['peak_mb']} MB"]


def _others(runs: list[Mapping[str, Any]], networks: list[str]) -> Iterator[list[str]]:
    for run in runs:
        if run["group"] not in networks and not run["group"].startswith(CURVE):
            figures = ", ".join(f"{name}: {value}" for name, value in run["extra_info"].items())
            yield [f"{run['group']}, {run['name'].removeprefix('test_')}", f"{run['stats']['median']:.3f}", figures]


def _machine(record: Mapping[str, Any]) -> str:
    cpu = record["machine_info"]["cpu"]
    return f"{cpu['brand_raw']}, one thread, torch {torch.__version__}, {record['datetime'][:10]}"


def main() -> None:
    """Reads the file that the command line names and writes the table."""
    text = tables(json.loads(Path(sys.argv[1]).read_text()))
    write_whole(RESULT, text)
    print(text)


if __name__ == "__main__":
    main()
