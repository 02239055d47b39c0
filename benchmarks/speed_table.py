"""The page that `benchmarks.speed` writes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.result_files import markdown_table
from prunegraph.timing import Target

Row = Mapping[str, Any]
WANTED = 0.85
HEAD = ("network", "audio", "form", "plan", "MACs", "speed-up", "reached", "in all", "wall", "dense, ms", "rounds")

NOTES = """
Batch 1, float32, inference mode, warm. *MACs*: the dense network's by the pruned one's. *speed-up*: the dense
network's time by the pruned one's in the same round, both in the same form, all networks in turns; median over rounds
(quartiles). Time is the processor time of all threads of the process: the machine was shared, and what other programs
took is not in it. *wall*: the same ratio by the clock on the wall. *reached*: speed-up by MACs; {wanted} is wanted.

*uniform*: the same share of every group; *l1*: `Budget(macs=0.5)`; *round n*: widths are multiples of n; *by time*:
`Budget(ratio=0, pin=widths_for_speed(..., macs=0.5, round_to=16))`, by a profile that was measured on 1 s.
*optimized*: both networks through `prunegraph.optimize(..., compiled=False)`; *compiled*: the same with compilers, each
network in the form that was found the fastest. *in all*: the eager dense network's time by the pruned one's in its
form.

{target}, {date}. Written by `python -m benchmarks.speed`.
"""


OPS = """
Share of the dense network's processor time by kind of op, 1 s of audio, eager; and by how much that time is less in
the pruned network.
"""


def page(known: Mapping[str, Sequence[Row]], target: Target) -> str:
    """The whole page, in Markdown."""
    notes = NOTES.format(wanted=WANTED, target=target, date=time.strftime("%Y-%m-%d", time.gmtime()))
    speed = markdown_table(HEAD, _speed(known["speed"]))
    ops = _ops(known["ops"])
    return f"# What half of the MACs is worth in time\n\n{speed}\n{notes}\n## What takes the time\n{OPS}\n{ops}\n"


def _speed(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    for row in sorted(rows, key=lambda row: (row["network"], row["form"], row["seconds"])):
        low, median, high = row["processor"]
        yield (
            row["network"],
            f"{row['seconds']:g} s",
            row["form"] if row["form"] == "eager" else f"{row['form']} ({' / '.join(row['runs as'])})",
            row["plan"],
            f"{row['macs']:.2f}x",
            f"{median:.2f}x ({low:.2f} to {high:.2f})",
            f"{median / row['macs']:.2f}",
            f"{row.get('in all', median):.2f}x",
            f"{row['wall'][1]:.2f}x",
            f"{row['dense ms'][0]:.0f}",
            str(row["rounds"]),
        )


def _ops(rows: Sequence[Row]) -> str:
    plans = list(dict.fromkeys(plan for row in rows for plan in row["faster"]))
    cells = (
        (row["network"], row["op"], f"{row['share']:.0%}", *(f"{row['faster'].get(p, 0):.2f}x" for p in plans))
        for row in rows
    )
    return markdown_table(("network", "op", "share", *plans), cells)
