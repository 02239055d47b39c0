"""The plug-in system: what plug-ins implement, and how they are found."""

from prunegraph.plugin.contracts import Criterion, CriterionContext, Need, run_criterion
from prunegraph.plugin.hookspecs import hookimpl
from prunegraph.plugin.manager import create_manager, find_criterion, load_criteria

__all__ = [
    "Criterion",
    "CriterionContext",
    "Need",
    "create_manager",
    "find_criterion",
    "hookimpl",
    "load_criteria",
    "run_criterion",
]
