"""Scale criterion: a channel is as important as the factor by which its norms scale it."""

from collections.abc import Sequence

from prunegraph.plugin import Criterion, hookimpl
from prunegraph_norm_scale.criterion import NormScale

__all__ = ["NormScale", "prunegraph_criteria"]


@hookimpl
def prunegraph_criteria() -> Sequence[Criterion]:
    """Offers ``bn-scale``."""
    return (NormScale(),)
