"""Scaling factors of norms as importance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from prunegraph.ir.channels import ChannelGroup, Member
from prunegraph.plugin import CriterionContext, GraphView, Need, NetworkScores
from prunegraph_magnitude import Magnitude

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)  # _NormBase: batch and instance norms


@dataclass(frozen=True, slots=True, kw_only=True)
class NormScale:
    r"""Mean absolute scaling factor (gamma) of the norms that a channel passes.

    $$s_c = \frac{1}{|\Gamma|} \sum_{\gamma \in \Gamma} \frac{1}{|I_c|} \sum_{i \in I_c} |\gamma_i|,$$

    with $\Gamma$ the scales of the norms in the channel's group, and $I_c$ the indices that belong to channel $c$ in
    each. Scales are compared over the whole network, as in the paper. A scale is the ``weight`` of one of
    torch's norms (batch, instance, group, layer, RMS) or, in a norm of the network's own, a parameter called
    ``gamma``.

    A group that passes no norm is scored by its L1 magnitude, multiplied such that its mean equals the mean scale of
    all channels that pass one. A network without any norm is refused.

    Reference:
        Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, section 3; there
        for batch norms, and trained with an L1 penalty on the scales.
    """

    name: str = "bn-scale"
    needs: frozenset[Need] = frozenset()

    def supports(self, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
        """Needs a norm with learnable scales on some group."""
        if any(_scales(graph, group) for group in graph.groups) or not graph.groups:
            return ()
        return ("no channel group of this network passes a norm with learnable scales; use 'l1'",)

    def score(
        self, graph: GraphView, weights: Mapping[str, torch.Tensor], context: CriterionContext
    ) -> Mapping[str, torch.Tensor]:
        """Scores of shape ``(width,)`` per group, in float32 or the weights' own wider type."""
        scales = {group.name: [m for m in _scales(graph, group) if m.tensor in weights] for group in graph.groups}
        scaled = {
            name: torch.stack([_per_channel(member, weights[member.tensor]) for member in members]).mean(dim=0)
            for name, members in scales.items()
            if members
        }
        level = float(torch.cat([score.double() for score in scaled.values()]).mean()) if scaled else 1.0
        magnitudes = Magnitude(order=1).score(graph, weights, context)
        return NetworkScores(
            {name: scaled[name] if name in scaled else _levelled(magnitudes[name], level) for name in scales}
        )


def _scales(graph: GraphView, group: ChannelGroup) -> Sequence[Member]:
    return [member for member in group.members if _is_scale(graph, member.tensor)]


def _is_scale(graph: GraphView, tensor: str) -> bool:
    path, _, name = tensor.rpartition(".")
    module = graph.modules.get(path)
    return name == "gamma" or (name == "weight" and module is not None and issubclass(module.kind, _NORMS))


def _per_channel(member: Member, scale: torch.Tensor) -> torch.Tensor:
    """Mean absolute scale of each channel, shape ``(width,)``."""
    by_index = scale.abs().to(torch.promote_types(scale.dtype, torch.float32)).movedim(member.dim, 0)
    indices = torch.as_tensor(member.indices, device=scale.device)
    return by_index.reshape(scale.shape[member.dim], -1)[indices].flatten(1).mean(dim=1)


def _levelled(magnitudes: torch.Tensor, level: float) -> torch.Tensor:
    """Magnitudes multiplied such that their mean is the level."""
    mean = magnitudes.mean()
    return magnitudes * (level / mean) if bool(mean > 0) else torch.full_like(magnitudes, level)
