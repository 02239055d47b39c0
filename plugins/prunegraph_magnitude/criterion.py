"""L1 and L2 magnitude on channel groups."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from prunegraph.ir.channels import ChannelGroup, Member
from prunegraph.plugin import CriterionContext, GraphView, Need


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude:
    r"""Mean norm of the weights that a channel owns.

    Channel $c$ of a group owns a slice $w_{m,c}$ of each member $m$: a filter of the layer that makes the channel,
    an input column of each layer that reads it, its bias, its affine parameters of a norm. Its score is

    $$s_c = \frac{1}{|M|} \sum_{m \in M} \lVert w_{m,c} \rVert_p, \qquad p \in \{1, 2\}.$$

    Only parameters count; running statistics and other buffers are no weights. A group without parameters scores
    zero everywhere: removing its channels removes no weight. Of a parametrised weight (weight norm, for instance) the
    stored parameters count.

    Attributes:
        order: $p$.

    Reference:
        Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017; summed over coupled layers as in
        Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023.
    """

    order: Literal[1, 2]

    @property
    def name(self) -> str:
        """``l1`` or ``l2``."""
        return f"l{self.order}"

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but the weights."""
        return frozenset()

    def supports(self, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
        """Serves every request."""
        return ()

    def score(
        self, graph: GraphView, weights: Mapping[str, torch.Tensor], context: CriterionContext
    ) -> Mapping[str, torch.Tensor]:
        """Scores of shape ``(width,)`` per group, in float32 or the weights' own wider type."""
        return {group.name: self._score_group(group, weights) for group in graph.groups}

    def _score_group(self, group: ChannelGroup, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        norms = [self._norms(member, weights[member.tensor]) for member in group.members if member.tensor in weights]
        return torch.stack(norms).mean(dim=0) if norms else torch.zeros(group.width)

    def _norms(self, member: Member, weight: torch.Tensor) -> torch.Tensor:
        """Norm of each channel's slice of one member, shape ``(width,)``: the p-norm of the p-norms of its rows."""
        by_index = norms_along(weight, member.dim, self.order)
        indices = torch.as_tensor(member.indices, device=weight.device)
        norms: torch.Tensor = torch.linalg.vector_norm(by_index[indices], ord=self.order, dim=1)
        return norms


def norms_along(weight: torch.Tensor, dim: int, order: Literal[1, 2]) -> torch.Tensor:
    """The p-norm of the slice at each index of one dimension, shape ``(size,)``, in float32 or the weight's wider type.

    A product with ones adds up leading dimensions several times as fast as a reduction does.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    leading, size = math.prod(weight.shape[:dim]), weight.shape[dim]
    if leading == 1:
        along: torch.Tensor = torch.linalg.vector_norm(weight.reshape(size, -1), ord=order, dim=1, dtype=wide)
        return along
    powers = weight.to(wide).abs() if order == 1 else weight.to(wide).abs().square()
    rows = powers.reshape(leading, -1)
    sums = (rows.new_ones(leading) @ rows).view(size, -1).sum(dim=1)
    return sums if order == 1 else sums.sqrt()
