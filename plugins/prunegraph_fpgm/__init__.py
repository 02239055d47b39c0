"""FPGM criterion: a channel is as important as it is far from all others, since others can stand in for a near one."""

from collections.abc import Sequence

from prunegraph.plugin import Criterion, hookimpl
from prunegraph_fpgm.criterion import GeometricMedian

__all__ = ["GeometricMedian", "prunegraph_criteria"]


@hookimpl
def prunegraph_criteria() -> Sequence[Criterion]:
    """Offers ``fpgm``."""
    return (GeometricMedian(),)
