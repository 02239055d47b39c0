"""Reconstruction: a channel is as important as what no other channel can make up for."""

from collections.abc import Sequence

from prunegraph.plugin import Criterion, hookimpl
from prunegraph_reconstruction.costs import macs_saved
from prunegraph_reconstruction.criterion import Reconstruction, removal_scores

__all__ = ["Reconstruction", "macs_saved", "prunegraph_criteria", "removal_scores"]


@hookimpl
def prunegraph_criteria() -> Sequence[Criterion]:
    """Offers ``reconstruction``."""
    return (Reconstruction(),)
