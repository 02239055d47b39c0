"""Distance from the geometric median on channel groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from prunegraph.ir.channels import ChannelGroup, Member
from prunegraph.plugin import CriterionContext, GraphView, Need


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricMedian:
    r"""Sum of the distances of a channel's filter from the filters of the other channels of its group.

    $$s_c = \frac{1}{|M|} \sum_{m \in M} \sum_{k} \lVert w_{m,c} - w_{m,k} \rVert_2,$$

    with $w_{m,c}$ the weights of tensor $m$ that belong to channel $c$. It is least for the channel that is
    nearest to the geometric median of all, which the others can best replace. $M$ holds the filters that make the
    channels and the columns that read them; biases and scales of norms, which have one number for each index, count
    only in a group that has nothing else. A group without parameters scores zero everywhere.

    Reference:
        He et al., Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration, CVPR 2019,
        section 3; averaged over coupled layers as in Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023.
    """

    name: str = "fpgm"
    needs: frozenset[Need] = frozenset()

    def supports(self, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
        """Serves every request."""
        return ()

    def score(
        self, graph: GraphView, weights: Mapping[str, torch.Tensor], context: CriterionContext
    ) -> Mapping[str, torch.Tensor]:
        """Scores of shape ``(width,)`` per group, in float32 or the weights' own wider type."""
        return {group.name: _score_group(group, weights) for group in graph.groups}


def _score_group(group: ChannelGroup, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    distances = [_distances(_filters(m, weights[m.tensor])).sum(dim=1) for m in _counted(group, weights)]
    return torch.stack(distances).mean(dim=0) if distances else torch.zeros(group.width)


def _counted(group: ChannelGroup, weights: Mapping[str, torch.Tensor]) -> Sequence[Member]:
    members = [member for member in group.members if member.tensor in weights]
    return [m for m in members if weights[m.tensor].numel() > weights[m.tensor].shape[m.dim]] or members


def _filters(member: Member, weight: torch.Tensor) -> torch.Tensor:
    """The weights of each channel, shape ``(width, weights)``; a complex number counts as two."""
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    parts = torch.view_as_real(exact) if exact.is_complex() else exact
    rows = parts.movedim(member.dim, 0).flatten(1) if parts.dim() > 1 else parts[:, None]
    return rows[torch.as_tensor(member.indices, device=weight.device)].flatten(1)


def _distances(points: torch.Tensor) -> torch.Tensor:
    """Euclidean distances, shape ``(points, points)``; without the matrix product that cancels for near points."""
    distances: torch.Tensor = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    return distances
