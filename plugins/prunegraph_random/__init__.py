"""Random criterion: the baseline that every other criterion has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from prunegraph.ir.channels import ChannelGroup
from prunegraph.plugin import Criterion, CriterionContext, GraphView, Need, hookimpl

__all__ = ["Random", "prunegraph_criteria"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Independent uniform scores in [0, 1), drawn from the context's seed.

    They are drawn on the CPU, group after group in alphabetical order, so that a seed means the same channels on
    every device.
    """

    name: str = "random"
    needs: frozenset[Need] = frozenset()

    def supports(self, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
        """Serves every request."""
        return ()

    def score(
        self, graph: GraphView, weights: Mapping[str, torch.Tensor], context: CriterionContext
    ) -> Mapping[str, torch.Tensor]:
        """Scores of shape ``(width,)`` per group."""
        generator = torch.Generator().manual_seed(context.seed)
        groups = sorted(graph.groups, key=lambda group: group.name)
        return {
            group.name: torch.rand(group.width, generator=generator).to(_device(group, weights)) for group in groups
        }


def _device(group: ChannelGroup, weights: Mapping[str, torch.Tensor]) -> torch.device:
    devices = (weights[member.tensor].device for member in group.members if member.tensor in weights)
    return next(devices, torch.device("cpu"))


@hookimpl
def prunegraph_criteria() -> Sequence[Criterion]:
    """Offers ``random``."""
    return (Random(),)
