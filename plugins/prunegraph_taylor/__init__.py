"""Taylor criterion: a channel is as important as the loss would change without it, to first order."""

from collections.abc import Sequence

from prunegraph.plugin import Criterion, hookimpl
from prunegraph_taylor.criterion import Taylor

__all__ = ["Taylor", "prunegraph_criteria"]


@hookimpl
def prunegraph_criteria() -> Sequence[Criterion]:
    """Offers ``taylor``."""
    return (Taylor(),)
