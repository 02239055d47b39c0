"""The page that `benchmarks.speed` writes."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.result_files import markdown_table

Row = Mapping[str, Any]
WANTED = 0.85
HEAD = ("network", "audio", "form", "plan", "MACs", "speed-up", "reached", "in all", "wall", "dense, ms", "rounds")

NOTES = """
Batch 1, float32, inference mode, warm. *MACs*: the dense network's by the pruned one's. *speed-up*: the dense
network's time by the pruned one's in the same round, both in the same form, all networks in turns; median over rounds
(quartiles). Time is the processor time of all threads of the process: the machine was shared, and what other programs
took is not in it. *wall*: the same ratio by the clock on the wall. *reached*: speed-up by MACs; {wanted} is wanted.
Threads that wait passively (`OMP_WAIT_POLICY=passive`, for a machine that others use) fall asleep between ops, and each
op pays for waking them, however narrow it is; by default they wait actively.

*uniform*: the same share of every group; *l1*: `Budget(macs=0.5)`; *round n*: widths are multiples of n; *by time*:
`Budget(ratio=0, pin=widths_for_speed(..., macs=0.5, round_to=16))`, by a profile that was measured on 1 s.
*optimized*: both networks through `prunegraph.optimize(..., compiled=False)`; *compiled*: the same with compilers, each
network in the form, and on as many threads, as was found the fastest (the dense / the pruned one). *in all*: the eager
dense network's time by the pruned one's in its form. Written by `python -m benchmarks.speed`.
"""


OPS = """
Share of the dense network's processor time by kind of op, 1 s of audio, eager; and by how much that time is less in
the pruned network.
"""


CALLS = """
What a call costs however short the audio is, and what each second adds: a straight line through the medians at
{short:g} and {long:g} s, processor time, plan *by time*. Widths hardly change the first; where it weighs, short audio
gains less.
"""


def page(known: Mapping[str, Sequence[Row]]) -> str:
    """The whole page, in Markdown."""
    machines = list(dict.fromkeys(row["measured on"] for row in known["speed"]))
    tables = "\n".join(_machine(machine, known["speed"]) for machine in machines)
    lengths = sorted({row["seconds"] for row in known["speed"]})
    calls = f"{CALLS.format(short=lengths[0], long=lengths[-1])}\n{_calls(known['speed'], lengths)}\n"
    notes, ops = NOTES.format(wanted=WANTED), _ops(known["ops"])
    return f"# What half of the MACs is worth in time\n{notes}\n{tables}\n## What takes the time\n{OPS}\n{ops}\n{calls}"


def _machine(machine: str, rows: Sequence[Row]) -> str:
    there = [row for row in rows if row["measured on"] == machine]
    return f"## {machine}\n\n{markdown_table(HEAD, _speed(there))}\n"


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


def _calls(rows: Sequence[Row], lengths: Sequence[float]) -> str:
    """Of networks and forms that were measured at the shortest and at the longest audio."""
    found: dict[tuple[str, str, str], dict[float, tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        if row["plan"] == "by time":
            dense = row["dense ms"][0]
            found[row["network"], row["form"], row["measured on"]][row["seconds"]] = dense, dense / row["processor"][1]
    short, long = lengths[0], lengths[-1]
    lines = {
        key: (_line(short, long, at[short], at[long])) for key, at in sorted(found.items()) if {short, long} <= {*at}
    }
    cells = (
        (
            network,
            form,
            "passively" if "passively" in measured_on else "actively",
            *(f"{base:.0f} + {slope:.0f}" for base, slope in line),
            f"{line[0][1] / line[1][1]:.2f}x",
        )
        for (network, form, measured_on), line in lines.items()
    )
    head = ("network", "form", "threads wait", "dense, ms + ms / s", "by time, ms + ms / s", "speed-up per second")
    return markdown_table(head, cells)


def _line(
    short: float, long: float, first: tuple[float, float], last: tuple[float, float]
) -> list[tuple[float, float]]:
    """For each network its time at no audio at all, and for each second of it."""
    slopes = [(b - a) / (long - short) for a, b in zip(first, last, strict=True)]
    return [(a - short * slope, slope) for a, slope in zip(first, slopes, strict=True)]


def _ops(rows: Sequence[Row]) -> str:
    plans = list(dict.fromkeys(plan for row in rows for plan in row["faster"]))
    cells = (
        (row["network"], row["op"], f"{row['share']:.0%}", *(f"{row['faster'].get(p, 0):.2f}x" for p in plans))
        for row in rows
    )
    return markdown_table(("network", "op", "share", *plans), cells)
