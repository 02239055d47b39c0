"""Reconstruction: a channel is as important as what no other channel can make up for."""

from collections.abc import Sequence

from prunegraph.plugin import Criterion, hookimpl
from prunegraph_reconstruction.criterion import Reconstruction, removal_ranks

__all__ = ["Reconstruction", "prunegraph_criteria", "removal_ranks"]


@hookimpl
def prunegraph_criteria() -> Sequence[Criterion]:
    """Offers ``reconstruction``."""
    return (Reconstruction(),)
