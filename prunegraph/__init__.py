"""prunegraph: structured channel pruning for any PyTorch speech-separation network.

The stages, each usable alone: `build_graph`, `score`, `select`, `apply`, `verify`; `prune` composes them, `compensate`
and `recover` bring quality back, `save` and `load` keep the result.
"""

from prunegraph.deployment import optimize
from prunegraph.errors import (
    BudgetError,
    CaptureError,
    CriterionError,
    FileFormatError,
    InputError,
    PlanError,
    PluginError,
    PrunegraphError,
    SurgeryError,
    UnsupportedModelError,
    VerificationError,
)
from prunegraph.graph import DependencyGraph, build_graph
from prunegraph.importance.scoring import score
from prunegraph.io.saving import load, save
from prunegraph.ir.budget import Budget
from prunegraph.ir.latency import LatencyProfile
from prunegraph.ir.plan import PruningPlan
from prunegraph.masked.program import MaskedProgram
from prunegraph.pipeline import PruningResult, prune
from prunegraph.plugin.hookspecs import hookimpl
from prunegraph.profiling.rounding import measure_rounding
from prunegraph.profiling.whole import profile
from prunegraph.recovery.compensation import compensate
from prunegraph.recovery.recovering import recover
from prunegraph.recovery.settings import GradualPruning, RecoverySettings
from prunegraph.selection.selector import select
from prunegraph.selection.widths import widths_for_speed
from prunegraph.surgery.optimizer import slice_optimizer
from prunegraph.surgery.slicing import apply
from prunegraph.verification.verifying import verify

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "BudgetError",
    "CaptureError",
    "CriterionError",
    "DependencyGraph",
    "FileFormatError",
    "GradualPruning",
    "InputError",
    "LatencyProfile",
    "MaskedProgram",
    "PlanError",
    "PluginError",
    "PrunegraphError",
    "PruningPlan",
    "PruningResult",
    "RecoverySettings",
    "SurgeryError",
    "UnsupportedModelError",
    "VerificationError",
    "__version__",
    "apply",
    "build_graph",
    "compensate",
    "hookimpl",
    "load",
    "measure_rounding",
    "optimize",
    "profile",
    "prune",
    "recover",
    "save",
    "score",
    "select",
    "slice_optimizer",
    "verify",
    "widths_for_speed",
]
