"""Rows, what is flagged as unfair, and means over seeds."""

import json
from dataclasses import asdict, replace

import pytest

from prunegraph.evaluation.intervals import MeanInterval
from prunegraph.leaderboard.results import Quality, Row, Timing, means_over_seeds, rows_of
from prunegraph.leaderboard.study import Cell

CELL = Cell(network="net", criterion="l1", budget=0.5, seed=0)
QUALITY = Quality(
    parameters=100,
    weight_bytes=400,
    macs_per_second=1000,
    macs_share=0.5,
    scoring_s=1.0,
    si_sdri={
        "pruned": MeanInterval(mean=1.0, half_width=0.2, count=9),
        "both": MeanInterval(mean=4, half_width=1, count=9),
    },
    plan="{}",
)
TIMING = Timing(
    latency_ms=10.0, latency_p95_ms=11.0, speedup=1.5, rtf=0.0025, peak_memory_bytes=7, threads=1, timed_on="cpu"
)


def rows(*cells: tuple[Cell, Quality]) -> tuple[Row, ...]:
    return rows_of(dict(cells), dict.fromkeys((cell for cell, _ in cells), TIMING))


def test_a_row_has_the_figures_of_its_cell() -> None:
    (row,) = rows((CELL, QUALITY))
    assert (row.criterion, row.parameters, row.latency_ms, row.scoring_s) == ("l1", 100, 10.0, 1.0)
    assert (row.si_sdri_pruned, row.si_sdri_pruned_ci, row.si_sdri_tuned) == (1.0, 0.2, None)
    assert row.final == (4, 1)


@pytest.mark.parametrize(("share", "fair"), [(0.4901, True), (0.4899, False), (0.51, True)])
def test_cells_of_a_budget_lie_within_two_percent_or_are_flagged(share: float, fair: bool) -> None:
    other = replace(CELL, criterion="other")
    found = rows((CELL, QUALITY), (other, replace(QUALITY, macs_share=share)))
    assert found[1].fair is fair
    assert found[0].fair is (share <= 0.5 / 0.98)


def test_other_budgets_and_networks_do_not_count_for_fairness() -> None:
    found = rows(
        (CELL, QUALITY),
        (replace(CELL, budget=0.9), replace(QUALITY, macs_share=0.9)),
        (replace(CELL, network="wide"), replace(QUALITY, macs_share=0.6)),
    )
    assert all(row.fair for row in found)


def test_without_a_timing_there_is_no_row() -> None:
    assert rows_of({CELL: QUALITY}, {}) == ()


def test_means_over_seeds() -> None:
    better = replace(QUALITY, parameters=103, si_sdri={"pruned": MeanInterval(mean=2.0, half_width=0.4, count=9)})
    first = replace(QUALITY, si_sdri={"pruned": QUALITY.si_sdri["pruned"]})
    dense = replace(CELL, criterion="dense", budget=1.0)
    found = means_over_seeds(
        rows((CELL, first), (replace(CELL, seed=7), better), (dense, replace(first, macs_share=1)))
    )
    assert [(row.criterion, row.seed) for row in found] == [("dense", 0), ("l1", 0)]
    assert (found[1].si_sdri_pruned, found[1].parameters, found[1].fair) == (1.5, 102, True)
    assert found[1].si_sdri_pruned_ci == pytest.approx(0.3)


def test_qualities_survive_json() -> None:
    assert Quality.from_json(json.loads(json.dumps(asdict(QUALITY)))) == QUALITY
