"""What the commands found, as JSON: the whole of it, where tables show the most important."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from prunegraph.graph import DependencyGraph
from prunegraph.ir.channels import LockedGroup, Member
from prunegraph.ir.cost import Cost
from prunegraph.ir.outcome import VerificationReport
from prunegraph.pipeline import PruningResult
from prunegraph.plugin.contracts import Criterion


def macs_shares(graph: DependencyGraph) -> dict[str, float]:
    """Group name -> share of the network's MACs that would go if one channel of the group stayed."""
    stays = np.ones(sum(group.width for group in graph.groups), bool)
    dense = max(graph.cost_model.macs_and_parameters(stays)[0], 1.0)
    shares, start = {}, 0
    for group in graph.groups:
        stays[start + 1 : start + group.width] = False
        shares[group.name] = 1 - graph.cost_model.macs_and_parameters(stays)[0] / dense
        stays[start : start + group.width] = True
        start += group.width
    return shares


def inspection(network: str, graph: DependencyGraph) -> dict[str, Any]:
    """What ``inspect`` found."""
    shares = macs_shares(graph)
    return {
        **_head(network),
        "cost": cost(graph.cost()),
        "coverage": graph.coverage,
        "groups": [
            {
                "name": group.name,
                "width": group.width,
                "module": group.module,
                "macs_share": shares[group.name],
                "members": _members(group.members),
            }
            for group in graph.groups
        ],
        "locked": [_locked(group) for group in graph.locked],
        "without_rule": dict(graph.without_rule),
        "unused": sorted(graph.unused),
    }


def pruning(network: str, result: PruningResult, saved_to: str | None) -> dict[str, Any]:
    """What ``prune`` did."""
    report = result.report
    return {
        **_head(network),
        "criterion": report.criterion,
        "cost": {"dense": cost(report.dense), "pruned": cost(report.pruned)},
        "latency": None if report.latency is None else dict(zip(("dense", "pruned"), report.latency, strict=True)),
        "widths": {name: {"dense": dense, "pruned": pruned} for name, (dense, pruned) in report.widths.items()},
        "coverage": report.coverage,
        "locked": [_locked(group) for group in report.locked],
        "unproved": report.unproved,
        "without_rule": dict(report.without_rule),
        "verification": verification(report.verification),
        "saved_to": saved_to,
    }


def verified(network: str, directory: str, report: VerificationReport) -> dict[str, Any]:
    """What ``verify`` proved."""
    return {**_head(network), "directory": directory, "verification": verification(report)}


def verification(report: VerificationReport) -> dict[str, Any]:
    """The checks that were made."""
    return {
        "difference": report.difference,
        "tolerance": report.tolerance,
        "checks": [{"name": check.name, "detail": check.detail} for check in report.checks],
    }


def cost(found: Cost) -> dict[str, Any]:
    """Totals, stages and modules."""
    return {**asdict(found), "stages": [asdict(stage) for stage in found.by_stage().values()]}


def plugins(known: Mapping[str, Criterion], owners: Mapping[str, str], rules: Mapping[str, str]) -> dict[str, Any]:
    """The installed criteria, and plug-ins by the operators that they have rules for."""
    criteria = [
        {"name": name, "plugin": owners[name], "needs": sorted(criterion.needs), "summary": summary(criterion)}
        for name, criterion in known.items()
    ]
    return {"criteria": criteria, "op_rules": [{"op": op, "plugin": plugin} for op, plugin in rules.items()]}


def summary(criterion: Criterion) -> str:
    """First line of the criterion's documentation; dataclasses without any are given their signature."""
    line = (type(criterion).__doc__ or "").strip().partition("\n")[0]
    return "" if line.startswith(f"{type(criterion).__name__}(") else line


def _head(network: str) -> dict[str, str]:
    return {"network": network, "prunegraph": version("prunegraph"), "torch": torch.__version__}


def _members(members: tuple[Member, ...]) -> list[dict[str, Any]]:
    return [
        {"tensor": member.tensor, "dim": member.dim, "indices_per_channel": int(member.indices.shape[1])}
        for member in members
    ]


def _locked(group: LockedGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "width": group.width,
        "members": _members(group.members),
        "locks": [{"reason": lock.reason, "op": lock.op, **asdict(lock.site)} for lock in group.locks],
    }
