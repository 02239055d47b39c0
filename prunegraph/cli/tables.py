"""What the commands found, as tables for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from prunegraph.cli.documents import macs_shares, summary
from prunegraph.evaluation.metrics import METRICS
from prunegraph.evaluation.separation import Evaluation
from prunegraph.evaluation.speed import Speed
from prunegraph.graph import DependencyGraph
from prunegraph.ir.channels import LockedGroup
from prunegraph.ir.cost import Cost, ModuleCost
from prunegraph.ir.latency import LatencyProfile
from prunegraph.ir.outcome import Report, VerificationReport
from prunegraph.ir.trace import Site
from prunegraph.plugin.contracts import Criterion
from prunegraph.profiling.rounding import RoundingTable


def show_inspection(console: Console, network: str, graph: DependencyGraph, top: int) -> None:
    """Costs, groups, what is locked and what has no rule; at most ``top`` rows each, 0 for all."""
    cost = graph.cost()
    console.print(
        Text.assemble(
            (network, "bold"),
            f": {_si(cost.macs)} MACs, {_si(cost.parameters)} parameters, {decimal(cost.activation_bytes)} of "
            f"activations; {graph.coverage:.1%} of the parameters lie in prunable groups",
        )
    )
    _show_costs(console, cost, top)
    _show_groups(console, graph, top)
    _show_locked(console, graph.locked, top)
    _show_without_rule(console, graph.without_rule)
    if graph.unused:
        console.print(f"\nnever read in the forward pass, left as they are: {', '.join(sorted(graph.unused))}")


def show_pruning(console: Console, report: Report, top: int) -> None:
    """Costs before and after, the groups that shrank, and the checks."""
    table = _table("Cost", "", "dense", "pruned", "stays")
    for name, before, after, form in (
        ("MACs", report.dense.macs, report.pruned.macs, _si),
        ("parameters", report.dense.parameters, report.pruned.parameters, _si),
        ("activation memory", report.dense.activation_bytes, report.pruned.activation_bytes, decimal),
    ):
        table.add_row(name, form(before), form(after), _share(after, before))
    if report.latency is not None:
        dense, smaller = report.latency
        table.add_row("latency by the profile", _ms(dense), _ms(smaller), f"{smaller / dense:.1%}")
    pruned = report.pruned.by_stage()
    for name, stage in report.dense.by_stage().items():
        after = pruned[name].macs if name in pruned else 0
        if stage.macs:
            table.add_row(Text(f"  MACs of {name}", "dim"), _si(stage.macs), _si(after), _share(after, stage.macs))
    _finish(console, table)
    _show_widths(console, report.widths, top)
    _show_unproved(console, report.unproved)
    _show_without_rule(console, report.without_rule)
    show_checks(console, report.verification)


def show_checks(console: Console, report: VerificationReport) -> None:
    """Everything that was proved."""
    table = _table("Proved", "check", "found")
    table.columns[1].justify = "left"
    for check in report.checks:
        table.add_row(Text(check.name, "green"), check.detail)
    _finish(console, table)


def show_plugins(
    console: Console, criteria: Mapping[str, Criterion], plugins: Mapping[str, str], rules: Mapping[str, str]
) -> None:
    """The installed criteria, who offers them and what they need beside the weights; rules for operators, if any."""
    table = _table("Criteria", "name", "plug-in", "needs", "what it is")
    for column in table.columns[1:]:
        column.justify = "left"
    for name, criterion in criteria.items():
        needs = ", ".join(sorted(criterion.needs)) or "nothing"
        table.add_row(Text(name, "bold"), plugins[name], needs, summary(criterion))
    _finish(console, table)
    for op, plugin in rules.items():
        console.print(f"rule for {op}: {plugin}")


def show_evaluation(console: Console, found: Evaluation, speed: Speed) -> None:
    """Mean scores with their intervals, and how fast the network is."""
    table = _table(f"Separation of {len(found.scores)} mixtures", "score", "mean", "95 % interval", "mixtures")
    for name, mean in found.means.items():
        metric = METRICS[name if name in METRICS else name.removesuffix("i")]
        label = name.upper().replace("SI_SDR", "SI-SDR").replace("SDRI", "SDRi")
        interval = f"{mean.mean - mean.half_width:.2f} to {mean.mean + mean.half_width:.2f}"
        table.add_row(Text(label, "bold"), f"{mean.mean:.2f} {metric.unit}".strip(), interval, str(mean.count))
    _finish(console, table, caption="an i marks the improvement over the mixture; Student's t intervals over mixtures")
    console.print(
        f"\nreal-time factor {speed.real_time_factor:.3g}: {1000 * speed.latency:.3g} ms (95th percentile "
        f"{1000 * speed.latency_p95:.3g} ms) for {speed.seconds:.3g} s of audio on {speed.device}, "
        f"{speed.threads} thread{'s' if speed.threads > 1 else ''}"
    )


def show_profile(console: Console, found: LatencyProfile) -> None:
    """What was measured of the whole network, and how well the table describes it."""
    rows = _table(f"Latency on {found.target}", "channels", "measured", "interquartile range", "predicted", "error")
    for width in found.widths:
        error = width.predicted / width.median - 1
        rows.add_row(f"{width.share:.0%}", _ms(width.median), _ms(width.spread), _ms(width.predicted), f"{error:+.1%}")
    _finish(console, rows, caption="each group with the same share of its channels; these networks made the table")


def show_rounding(console: Console, found: RoundingTable) -> None:
    """Time per channel at widths that are multiples of more and more."""
    rows = _table(f"Rounding: {found.op} of {found.module}", "multiple of", "channels", "time", "per channel")
    for width in found.widths:
        style = "bold" if width is found.best else ""
        rows.add_row(
            Text(str(width.round_to), style), str(width.width), _ms(width.seconds), f"{1e6 * width.per_channel:.3g} us"
        )
    _finish(console, rows, caption="what prune --round-to is worth here; nothing is rounded unless you ask for it")


def _show_costs(console: Console, cost: Cost, top: int) -> None:
    _show_cost_table(console, "Stages", list(cost.by_stage().values()), cost, top)
    modules = sorted(cost.modules, key=lambda module: -module.macs)
    _show_cost_table(console, "Modules", modules, cost, top)


def _show_cost_table(console: Console, title: str, rows: Sequence[ModuleCost], cost: Cost, top: int) -> None:
    table = _table(title, "", "MACs", "share", "parameters", "share")
    shown = rows[: top or None]
    for row in shown:
        name = row.module or "(network)"
        macs, parameters = _share(row.macs, cost.macs), _share(row.parameters, cost.parameters)
        table.add_row(name, _si(row.macs), macs, _si(row.parameters), parameters)
    _finish(console, table, len(rows) - len(shown))


def _show_groups(console: Console, graph: DependencyGraph, top: int) -> None:
    shares = macs_shares(graph)
    groups = sorted(graph.groups, key=lambda group: -shares[group.name])
    table = _table(f"Channel groups ({len(groups)})", "group", "channels", "members", "share of MACs")
    for group in groups[: top or None]:
        table.add_row(group.name, str(group.width), str(len(group.members)), f"{shares[group.name]:.1%}")
    hidden = len(groups) - len(groups[: top or None])
    _finish(
        console, table, hidden, "share of MACs: what goes when one channel stays; layers count on both of their sides"
    )


def _show_locked(console: Console, locked: Sequence[LockedGroup], top: int) -> None:
    if not locked:
        return
    table = _table(f"Locked ({len(locked)})", "first tensor", "channels", "why", "where")
    table.columns[2].justify = table.columns[3].justify = "left"
    for group in locked[: top or None]:
        for number, lock in enumerate(group.locks or ()):
            first = (group.name, str(group.width)) if number == 0 else ("", "")
            table.add_row(*first, f"{lock.reason} ({lock.op})", _place(lock.site))
    _finish(console, table, len(locked) - len(locked[: top or None]))


def _show_unproved(console: Console, unproved: Mapping[str, str]) -> None:
    if unproved:
        table = _table("Whole: their removal could not be proved", "group", "what failed")
        table.columns[1].justify = "left"
        for name, failure in unproved.items():
            table.add_row(Text(name, "yellow"), failure)
        _finish(console, table)


def _show_without_rule(console: Console, without_rule: Mapping[str, int]) -> None:
    if without_rule:
        table = _table("Operators without a rule: what meets them is locked", "operator", "calls")
        for op, calls in without_rule.items():
            table.add_row(Text(op, "yellow"), str(calls))
        _finish(console, table)


def _show_widths(console: Console, widths: Mapping[str, tuple[int, int]], top: int) -> None:
    shrunk = {name: pair for name, pair in widths.items() if pair[0] != pair[1]}
    table = _table(f"Channel groups ({len(shrunk)} of {len(widths)} shrank)", "group", "dense", "pruned", "stays")
    order = sorted(shrunk, key=lambda name: shrunk[name][1] / shrunk[name][0])
    for name in order[: top or None]:
        before, after = shrunk[name]
        table.add_row(name, str(before), str(after), _share(after, before))
    _finish(console, table, len(order) - len(order[: top or None]))


def _table(title: str, *columns: str) -> Table:
    """The first column is folded where the terminal is narrow, the others hold numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    return table


def _finish(console: Console, table: Table, hidden: int = 0, caption: str = "") -> None:
    console.print()
    console.print(table)
    more = f"{hidden} more rows: --top 0 shows all" if hidden else ""
    for line in (caption, more):
        if line:
            console.print(Text(line, "dim"))


def _place(site: Site) -> str:
    """As in ``encoder at nets/codec.py:12``, relative to the working directory where it lies below."""
    if not site.file:
        return site.module or "(network)"
    file = Path(site.file)
    short = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"{site.module or '(network)'} at {short}:{site.line}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _si(number: int) -> str:
    """Three digits and a prefix: ``1.53 M``."""
    value = float(number)
    for prefix in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{number}" if not prefix else f"{_three_digits(value)} {prefix}"
        value /= 1000
    return f"{_three_digits(value)} T"


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
