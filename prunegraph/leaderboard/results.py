"""What was found out about a cell, and the rows of the leaderboard."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from prunegraph.evaluation.intervals import MeanInterval
from prunegraph.leaderboard.study import DENSE, Cell

STAGES = ("pruned", "compensated", "tuned", "both")
"""When quality is measured: right after surgery, and after each way of recovery."""

FAIR = 0.98
"""Share of the largest MACs among the cells of a budget that a cell must use to be comparable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What a cell's network is, and how well it separates.

    Attributes:
        parameters: number of parameter elements.
        weight_bytes: memory of parameters and buffers.
        macs_per_second: MACs per second of audio.
        macs_share: of the dense network's.
        scoring_s: how long the criterion took.
        si_sdri: SI-SDR improvement in dB by stage, over mixtures.
        plan: the plan as JSON; None for the dense network.
    """

    parameters: int
    weight_bytes: int
    macs_per_second: int
    macs_share: float
    scoring_s: float | None
    si_sdri: Mapping[str, MeanInterval]
    plan: str | None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Quality":
        """Reads what `dataclasses.asdict` gave."""
        si_sdri = {stage: MeanInterval(**mean) for stage, mean in document["si_sdri"].items()}
        return cls(**{**document, "si_sdri": si_sdri})


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How fast a cell's network is, batch 1, and what memory it needs.

    Attributes:
        latency_ms: median processing time, over turns with the dense network.
        latency_p95_ms: its 95th percentile in the turn where that was greatest.
        speedup: median over the turns of the dense network's latency over this one's.
        rtf: processing time per second of audio.
        peak_memory_bytes: weights, and the peak of what torch holds beside them while the network separates.
        threads: of torch on the CPU.
        timed_on: name of the device.
    """

    latency_ms: float
    latency_p95_ms: float
    speedup: float
    rtf: float
    peak_memory_bytes: int
    threads: int
    timed_on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A cell of the leaderboard with all its figures; those of qualities and timings are explained there.

    Attributes:
        network: name of the network.
        criterion: name of the criterion or control.
        budget: MACs that might stay.
        seed: of the cell.
        fair: whether the MACs lie within 2 % of the largest among the network's cells of this budget.
        si_sdri_pruned: SI-SDR improvement in dB right after surgery; for the dense network, as it is.
        si_sdri_pruned_ci: half of the width of the 95 % confidence interval in dB; likewise the others.
        si_sdri_compensated: after closed-form compensation.
        si_sdri_tuned: after fine-tuning; for ``scratch``, after as many steps from the start.
        si_sdri_both: after compensation and fine-tuning.
    """

    network: str
    criterion: str
    budget: float
    seed: int
    fair: bool
    parameters: int
    macs_per_second: int
    macs_share: float
    weight_bytes: int
    latency_ms: float
    latency_p95_ms: float
    speedup: float
    rtf: float
    peak_memory_bytes: int
    threads: int
    timed_on: str
    scoring_s: float | None
    si_sdri_pruned: float | None = None
    si_sdri_pruned_ci: float | None = None
    si_sdri_compensated: float | None = None
    si_sdri_compensated_ci: float | None = None
    si_sdri_tuned: float | None = None
    si_sdri_tuned_ci: float | None = None
    si_sdri_both: float | None = None
    si_sdri_both_ci: float | None = None

    def quality(self, stage: str) -> tuple[float, float] | None:
        """Mean and half-width of a stage, if it was measured."""
        mean, half_width = getattr(self, f"si_sdri_{stage}"), getattr(self, f"si_sdri_{stage}_ci")
        return None if mean is None or half_width is None else (mean, half_width)

    @property
    def final(self) -> tuple[float, float]:
        """Mean and half-width after the fullest recovery that the cell had; it is not the best one that is picked."""
        return next(found for stage in reversed(STAGES) if (found := self.quality(stage)) is not None)


def rows_of(qualities: Mapping[Cell, Quality], timings: Mapping[Cell, Timing]) -> tuple[Row, ...]:
    """The rows of all cells that have both."""
    largest: dict[tuple[str, float], float] = defaultdict(float)
    for cell, quality in qualities.items():
        place = cell.network, cell.budget
        largest[place] = max(largest[place], quality.macs_share)
    return tuple(
        _row(cell, quality, timings[cell], quality.macs_share >= FAIR * largest[cell.network, cell.budget])
        for cell, quality in qualities.items()
        if cell in timings
    )


def _row(cell: Cell, quality: Quality, timing: Timing, fair: bool) -> Row:
    figures: dict[str, Any] = {}
    for stage, mean in quality.si_sdri.items():
        figures |= {f"si_sdri_{stage}": mean.mean, f"si_sdri_{stage}_ci": mean.half_width}
    return Row(
        **asdict(cell),
        **asdict(timing),
        **figures,
        fair=fair,
        parameters=quality.parameters,
        macs_per_second=quality.macs_per_second,
        macs_share=quality.macs_share,
        weight_bytes=quality.weight_bytes,
        scoring_s=quality.scoring_s,
    )


def means_over_seeds(rows: Sequence[Row]) -> tuple[Row, ...]:
    """One row for each network, budget and criterion, in this order, the dense network first; its seed is the first.

    Half-widths are averaged, too: the mixtures are the same for all seeds, so that more seeds do not narrow them.
    """
    groups: dict[tuple[str, float, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.network, row.budget, row.criterion), []).append(row)
    networks = list(dict.fromkeys(row.network for row in rows))
    order = sorted(groups, key=lambda key: (networks.index(key[0]), key[2] != DENSE, -key[1]))
    return tuple(_mean(groups[key]) for key in order)


def _mean(rows: Sequence[Row]) -> Row:
    averaged = {field.name: _average([getattr(row, field.name) for row in rows]) for field in fields(Row)}
    return Row(**{**averaged, "seed": rows[0].seed, "fair": all(row.fair for row in rows)})


def _average(values: Sequence[Any]) -> Any:
    """Of floats the mean, of counts the rounded mean, of the rest the first."""
    if isinstance(values[0], float):
        return statistics.mean(values)
    counts = isinstance(values[0], int) and len(set(values)) > 1
    return round(statistics.mean(values)) if counts else values[0]
