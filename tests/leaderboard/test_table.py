"""The leaderboard's table in terminals of any width."""

import io

import pytest
from rich.console import Console

from prunegraph.cli.leaderboard_table import show_leaderboard
from prunegraph.leaderboard.results import Row

ROWS = [
    Row(
        network="separator",
        criterion=criterion,
        budget=0.5,
        seed=0,
        fair=criterion != "random",
        parameters=123456,
        macs_per_second=123456789,
        macs_share=0.4987,
        weight_bytes=1234567,
        latency_ms=23.4,
        latency_p95_ms=30.0,
        speedup=1.53,
        rtf=0.0234,
        peak_memory_bytes=123456789,
        threads=2,
        timed_on="a machine",
        scoring_s=12.3,
        si_sdri_pruned=5.43,
        si_sdri_pruned_ci=0.32,
        si_sdri_both=8.4,
        si_sdri_both_ci=0.4,
    )
    for criterion in ("dense", "reconstruction", "random")
]


@pytest.mark.parametrize(("width", "tables"), [(200, 1), (80, 2)])
def test_no_cell_is_broken_where_the_terminal_is_narrow(width: int, tables: int) -> None:
    shown = io.StringIO()
    show_leaderboard(Console(file=shown, width=width), ROWS)
    lines = shown.getvalue().splitlines()
    assert sum("separator, 50% of the MACs" in line for line in lines) == tables
    assert sum(line.split()[:1] == ["reconstruction"] for line in lines) == tables
    for cell in ("5.43 ± 0.32", "8.40 ± 0.40", "123.5 MB", "12.3 s", "random (!)"):
        assert any(cell in line for line in lines)
    assert all(len(line.rstrip()) <= width for line in lines)
