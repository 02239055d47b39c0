"""The leaderboard as tables for people: one for each network and budget."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from prunegraph.leaderboard.results import STAGES, Row, means_over_seeds
from prunegraph.leaderboard.study import DENSE

_HEADINGS = ("MACs/s", "of dense", "params", "size", "latency", "speed-up", "RTF", "memory", "scoring")


def show_leaderboard(console: Console, rows: Sequence[Row]) -> None:
    """Means over seeds, the best after recovery first, each table with the dense network on top."""
    means = means_over_seeds(rows)
    stages = [stage for stage in STAGES if any(row.quality(stage) for row in means)]
    dense = {row.network: row for row in means if row.criterion == DENSE}
    pruned = [row for row in means if row.criterion != DENSE]
    for (network, budget), group in groupby(pruned, key=lambda row: (row.network, row.budget)):
        ranked = sorted(group, key=lambda row: -row.final[0])
        shown = (*([dense[network]] if network in dense else []), *ranked)
        names = [row.criterion if row.fair else f"{row.criterion} (!)" for row in shown]
        figures = zip((*stages, *_HEADINGS), *(_cells(row, stages) for row in shown), strict=True)
        for number, part in enumerate(_parts([("criterion", *names), *figures], console.width - 1)):
            title = f"{network}, {budget:.0%} of the MACs{', continued' * (number > 0)}"
            console.print()
            console.print(_table(title, part))
    console.print(Text(_caption(rows), "dim"))


def _parts(columns: Sequence[Sequence[str]], width: int) -> Iterator[list[Sequence[str]]]:
    """The columns in as many tables as they need in a terminal of that width, each with the first column."""
    first, *others = columns
    part, used = [first], _width(first)
    for column in others:
        if used + _width(column) > width and len(part) > 1:
            yield part
            part, used = [first], _width(first)
        part.append(column)
        used += _width(column)
    yield part


def _width(column: Sequence[str]) -> int:
    return max(map(len, column)) + 3


def _table(title: str, columns: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, (heading, *_) in enumerate(columns):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*row)
    return table


def _cells(row: Row, stages: Sequence[str]) -> list[str]:
    figures = [_decibels(row.quality(stage)) for stage in stages]
    scoring = "" if row.scoring_s is None else f"{row.scoring_s:.1f} s"
    return [
        *figures,
        f"{row.macs_per_second / 1e6:.1f} M",
        f"{row.macs_share:.1%}",
        f"{row.parameters / 1e3:.0f} k",
        decimal(row.weight_bytes),
        f"{row.latency_ms:.3g} ms",
        f"{row.speedup:.2f}x",
        f"{row.rtf:.3g}",
        decimal(row.peak_memory_bytes),
        scoring,
    ]


def _decibels(found: tuple[float, float] | None) -> str:
    return "" if found is None else f"{found[0]:.2f} ± {found[1]:.2f}"


def _caption(rows: Sequence[Row]) -> str:
    seeds, first = len({row.seed for row in rows}), rows[0]
    lines = [
        f"SI-SDRi in dB with 95 % intervals over mixtures, mean over {seeds} seed{'s' if seeds > 1 else ''}, right "
        "after surgery, compensated in closed form, fine-tuned, and both; by the last of them that was measured.",
        f"Timed on {first.timed_on}, {first.threads} thread{'s' if first.threads > 1 else ''}, batch 1, in turns with "
        "the dense network, whose own speed-up over itself shows the error.",
    ]
    if not all(row.fair for row in rows):
        lines.append("(!) uses less than 98 % of the MACs of another criterion at this budget: do not compare.")
    return "\n".join(lines)
