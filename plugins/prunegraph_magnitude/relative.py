"""What channels seem to be worth before anything is learned."""

from collections.abc import Mapping

import torch
from torch import Tensor

from prunegraph.ir.channels import ChannelGroup, Member
from prunegraph.plugin import GraphView
from prunegraph_magnitude.criterion import norms_along

_SMALLEST = 1e-12


def log_magnitudes(graph: GraphView, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Mean log norm of the weights that make and that read a channel, shape ``(width,)`` per group.

    .. math:: s_c = \frac{1}{|M|} \sum_{m \in M} \log \frac{\lVert w_{m,c} \rVert_2}{\bar w_m}

    over the members with at least two dimensions; :math:`\bar w_m` is the mean norm of a member's slices. Unlike a mean
    of norms it does not change when a channel is made twice as strong and read half as strongly. Groups without such
    weights have 0 everywhere.
    """
    device = next((tensor.device for tensor in weights.values()), torch.device("cpu"))
    return {group.name: _of_group(group, weights).to(device) for group in graph.groups}


def _of_group(group: ChannelGroup, weights: Mapping[str, Tensor]) -> Tensor:
    norms = [_relative_norms(m, weights[m.tensor]) for m in group.members if m.tensor in weights]
    logs = [norm.clamp_min(_SMALLEST).log() for norm in norms if norm is not None]
    return torch.stack(logs).mean(0) if logs else torch.zeros(group.width)


def _relative_norms(member: Member, weight: Tensor) -> Tensor | None:
    """Norm of each channel's slice, as a share of the mean; None where slices are single numbers."""
    if weight.dim() < 2:
        return None
    by_index = norms_along(weight.detach(), member.dim, order=2)
    norms: Tensor = by_index[torch.as_tensor(member.indices, device=weight.device)].norm(dim=1)
    return norms / norms.mean().clamp_min(_SMALLEST)
