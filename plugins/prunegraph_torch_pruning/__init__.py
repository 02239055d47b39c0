"""The criteria of torch-pruning, run on prunegraph's channel groups."""

from collections.abc import Sequence

from torch_pruning import importance as tp

from prunegraph.plugin import Criterion, hookimpl
from prunegraph_torch_pruning.criterion import TorchPruning

__all__ = ["TorchPruning", "prunegraph_criteria"]


@hookimpl
def prunegraph_criteria() -> Sequence[Criterion]:
    """Offers torch-pruning's criteria with their default settings, under names that begin with ``tp-``."""
    return (
        TorchPruning(name="tp-bn-scale", importance=tp.BNScaleImportance()),
        TorchPruning(name="tp-fpgm", importance=tp.FPGMImportance()),
        TorchPruning(name="tp-hessian", importance=tp.GroupHessianImportance()),
        TorchPruning(name="tp-lamp", importance=tp.LAMPImportance()),
        TorchPruning(name="tp-magnitude", importance=tp.GroupMagnitudeImportance()),
        TorchPruning(name="tp-random", importance=tp.RandomImportance()),
        TorchPruning(name="tp-taylor", importance=tp.GroupTaylorImportance()),
    )
