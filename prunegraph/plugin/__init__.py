"""The plug-in system: what plug-ins implement, and how they are found."""

from prunegraph.plugin.contracts import (
    Criterion,
    CriterionContext,
    GraphView,
    LayerMoments,
    MaskedProgram,
    Need,
    NetworkScores,
    Progress,
    run_criterion,
)
from prunegraph.plugin.hookspecs import hookimpl
from prunegraph.plugin.manager import create_manager, find_criterion, load_criteria, load_op_rules

__all__ = [
    "Criterion",
    "CriterionContext",
    "GraphView",
    "LayerMoments",
    "MaskedProgram",
    "Need",
    "NetworkScores",
    "Progress",
    "create_manager",
    "find_criterion",
    "hookimpl",
    "load_criteria",
    "load_op_rules",
    "run_criterion",
]
