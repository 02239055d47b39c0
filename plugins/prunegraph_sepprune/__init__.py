"""Learnable masks (SepPrune): which channels a separator can do without, learned on the network it will become."""

from collections.abc import Sequence

from prunegraph.plugin import Criterion, hookimpl
from prunegraph_sepprune.criterion import SepPrune

__all__ = ["SepPrune", "prunegraph_criteria"]


@hookimpl
def prunegraph_criteria() -> Sequence[Criterion]:
    """Offers ``sepprune``, and ``sepprune-epsilon`` for the paper's rule without a budget."""
    return (SepPrune(), SepPrune(mode="epsilon"))
