"""Quality against cost: which network one would choose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from prunegraph.leaderboard.results import Row, means_over_seeds
from prunegraph.leaderboard.study import DENSE, RANDOM, SCRATCH
from prunegraph.optional_packages import import_optional

_COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9")
"""Matplotlib's colours but grey, which is for controls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What is on the horizontal axis.

    Attributes:
        label: of the axis, with the unit.
        of: takes a row to its cost.
    """

    label: str
    of: Callable[[Row], float]


def draw_pareto(rows: Sequence[Row], file: Path) -> None:
    """Draws SI-SDRi against MACs and against latency, a row of two for each network, means over seeds, as PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
        OSError: the file cannot be written; an earlier one is left as it was.
    """
    figures = import_optional("matplotlib.figure", extra="bench")
    means = means_over_seeds(rows)
    networks = list(dict.fromkeys(row.network for row in means))
    figure = figures.Figure(figsize=(12, 4.5 * len(networks)), dpi=120, layout="constrained")
    axes = figure.subplots(len(networks), 2, squeeze=False, sharey="row")
    costs = (
        Cost(label="MACs per second of audio (M)", of=lambda row: row.macs_per_second / 1e6),
        Cost(label=_latency_label(means), of=lambda row: row.latency_ms),
    )
    for pair, network in zip(axes, networks, strict=True):
        own = [row for row in means if row.network == network]
        for axis, cost in zip(pair, costs, strict=True):
            _draw(axis, own, cost)
        pair[0].set_title(network, loc="left")
        pair[0].set_ylabel("SI-SDRi after recovery (dB)")
        pair[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    _save(figure, file)


def _latency_label(rows: Sequence[Row]) -> str:
    row = rows[0]
    where = f"{row.timed_on}, {row.threads} thread{'s' if row.threads > 1 else ''}"
    return f"Latency of {1e-3 * row.latency_ms / row.rtf:.3g} s of audio (ms; {where})"


def _draw(axis: Any, rows: Sequence[Row], cost: Cost) -> None:
    """A line for each criterion over its budgets, grey ones for the controls, and the dense network for reference."""
    criteria = list(dict.fromkeys(row.criterion for row in rows if row.criterion != DENSE))
    contestants = [name for name in criteria if name not in (RANDOM, SCRATCH)]
    for dense in (row for row in rows if row.criterion == DENSE):
        axis.axhline(dense.final[0], color="black", linestyle="--", linewidth=1)
        axis.errorbar(cost.of(dense), dense.final[0], dense.final[1], fmt="k*", markersize=11, capsize=3, label=DENSE)
    for name in criteria:
        points = sorted((row for row in rows if row.criterion == name), key=cost.of)
        means, half_widths = zip(*(row.final for row in points), strict=True)
        costs = [cost.of(row) for row in points]
        axis.errorbar(costs, means, half_widths, capsize=2, label=name, **_style(name, contestants))
    _draw_front(axis, rows, cost)
    axis.set_xlabel(cost.label)
    axis.set_xlim(0, 1.06 * max(cost.of(row) for row in rows))
    axis.grid(alpha=0.3)


def _draw_front(axis: Any, rows: Sequence[Row], cost: Cost) -> None:
    """The steps above which no network of the study lies: what none beats in both cost and quality."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (cost.of(row), -row.final[0])):
        if not front or row.final[0] > front[-1].final[0]:
            front.append(row)
    costs, means = [cost.of(row) for row in front], [row.final[0] for row in front]
    axis.step(costs, means, where="post", color="black", linewidth=6, alpha=0.12, label="Pareto front")


def _style(name: str, contestants: Sequence[str]) -> dict[str, Any]:
    if name in (RANDOM, SCRATCH):
        return {"color": "grey", "linestyle": ":", "marker": "x" if name == RANDOM else "s", "fillstyle": "none"}
    number = contestants.index(name)
    marker = "o^vDPph"[number // len(_COLOURS) % 7]
    return {"color": _COLOURS[number % len(_COLOURS)], "marker": marker, "alpha": 0.85, "linewidth": 1.2}


def _save(figure: Any, file: Path) -> None:
    partial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.partial")
    try:
        figure.savefig(partial, format="png")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
