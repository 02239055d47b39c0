"""Magnitude criteria: a channel is as important as its weights are large."""

from collections.abc import Sequence

from prunegraph.plugin import Criterion, hookimpl
from prunegraph_magnitude.criterion import Magnitude

__all__ = ["Magnitude", "prunegraph_criteria"]


@hookimpl
def prunegraph_criteria() -> Sequence[Criterion]:
    """Offers ``l1`` and ``l2``."""
    return (Magnitude(order=1), Magnitude(order=2))
