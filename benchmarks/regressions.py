"""Compares what ``make bench`` measured with the saved ratios, and fails where one is more than 25 % worse.

python -m benchmarks.regressions .benchmarks/stages.json [--save]

Machines differ, so times are not compared: each stage is measured against the forward pass of the same network, each
point of a curve against the curve's first one, and a step of mask learning against a training step, all in one run.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.result_files import write_whole

SAVED = Path(__file__).parent / "results" / "ratios.json"
TOLERANCE = 1.25
SLACK = 0.01
"""Seconds that a stage may always differ by: the shortest ones take no longer than that."""


def ratios(record: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Name of each ratio -> its value, and what ``SLACK`` is as a ratio."""
    return dict(_ratios(record["benchmarks"]))


def _ratios(runs: list[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[float, float]]]:
    seconds = {_place(run): run["stats"]["min"] for run in runs}
    for run in runs:
        group, stage, subject = _place(run)
        if "ratio to a training step" in run["extra_info"]:
            yield f"{group}: ratio to a training step", (run["extra_info"]["ratio to a training step"], 0.0)
        elif group.startswith("curve: "):
            first = next(s for (g, t, _), s in seconds.items() if (g, t) == (group, stage))
            yield f"{group}, {stage}, {subject}", (seconds[group, stage, subject] / first, SLACK / first)
        elif stage != "forward" and (group, "forward", subject) in seconds:
            forward = seconds[group, "forward", subject]
            yield f"{group}, {stage}", (seconds[group, stage, subject] / forward, SLACK / forward)


def _place(run: Mapping[str, Any]) -> tuple[str, str, str]:
    stage, _, subject = run["name"].removeprefix("test_").partition("[")
    return run["group"], stage, subject.removesuffix("]")


def regressions(now: Mapping[str, tuple[float, float]], saved: Mapping[str, float]) -> list[str]:
    """A line for each ratio that is worse than the saved one by more than the tolerance."""
    return [
        f"{name}: {value:.2f}, was {saved[name]:.2f}"
        for name, (value, slack) in now.items()
        if name in saved and value > saved[name] * TOLERANCE + slack
    ]


def main() -> None:
    """Reads the record that the command line names; compares its ratios with the saved ones, or saves the first."""
    now = ratios(json.loads(Path(sys.argv[1]).read_text()))
    if "--save" in sys.argv or not SAVED.exists():
        write_whole(SAVED, json.dumps({name: round(value, 3) for name, (value, _) in now.items()}, indent=0) + "\n")
        return
    saved = json.loads(SAVED.read_text())
    worse = regressions(now, saved)
    print("\n".join([*worse, f"{len(worse)} of {len(now.keys() & saved.keys())} ratios are more than 25 % worse"]))
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
