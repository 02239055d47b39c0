"""First-order Taylor importance on channel groups."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import torch

from prunegraph.ir.channels import ChannelGroup, Member
from prunegraph.plugin import CriterionContext, GraphView, Need


@dataclass(frozen=True, slots=True, kw_only=True)
class Taylor:
    r"""How much the loss of a batch changes to first order when a channel goes, averaged over the batches.

    Removing channel $c$ sets all of its weights $W_c$ to zero: its filter with bias, its affine parameters of norms,
    its rows in every gate of a recurrent layer, and the columns of each layer that reads it. To first order this
    changes the loss $L_b$ of batch $b$ by $-\sum_{w \in W_c} w\, \partial L_b / \partial w$. The score is

    $$s_c = \frac{1}{B} \sum_{b=1}^{B} \Bigl| \sum_{w \in W_c} w \frac{\partial L_b}{\partial w} \Bigr|,$$

    in units of the loss. It is taken batch by batch, since near a minimum the derivatives of different batches cancel.
    A weight that belongs to a channel twice, such as the one by which a recurrent unit reads itself, counts once. A
    group without parameters scores zero everywhere.

    Reference:
        Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, section 3: first order, over sets
        of weights, averaged over minibatches. The absolute value stands in place of the square, as in Molchanov et al.,
        Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017, section 2.2.
    """

    name: str = "taylor"
    needs: frozenset[Need] = frozenset({"gradients"})

    def supports(self, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
        """Serves every request."""
        return ()

    def score(
        self, graph: GraphView, weights: Mapping[str, torch.Tensor], context: CriterionContext
    ) -> Mapping[str, torch.Tensor]:
        """Scores of shape ``(width,)`` per group, in float32 or the weights' own wider type."""
        totals: dict[str, torch.Tensor] = {}
        batches = 0
        for gradients in context.gradients or ():
            batches += 1
            products = {name: _product(weights[name], gradient) for name, gradient in gradients.items()}
            for group in graph.groups:
                change = _change(group, products).abs()
                totals[group.name] = totals[group.name] + change if group.name in totals else change
        return {name: total / batches for name, total in totals.items()}


def _product(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Minus the change of the loss when this weight alone goes, for each element; real."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    product = weight.to(exact) * gradient.to(exact).conj()
    return product.real if product.is_complex() else product


def _change(group: ChannelGroup, products: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Sum of the products over each channel's weights, shape ``(width,)``."""
    members = sorted((m for m in group.members if m.tensor in products), key=lambda m: m.tensor)
    by_tensor = [_of_tensor(products[name], list(same)) for name, same in groupby(members, key=lambda m: m.tensor)]
    return torch.stack(by_tensor).sum(dim=0) if by_tensor else torch.zeros(group.width)


def _of_tensor(product: torch.Tensor, members: Sequence[Member]) -> torch.Tensor:
    """Sum over the union of a channel's slices along several dimensions of one tensor: inclusion and exclusion."""
    parts = [
        _of_intersection(product, chosen) * (1 if count % 2 else -1)
        for count in range(1, len(members) + 1)
        for chosen in combinations(members, count)
    ]
    return torch.stack(parts).sum(dim=0)


def _of_intersection(product: torch.Tensor, members: Iterable[Member]) -> torch.Tensor:
    """Sum over the elements that lie in a channel's slices along all of these dimensions."""
    indices = {m.dim: torch.as_tensor(m.indices, device=product.device) for m in members}
    rest = [dim for dim in range(product.dim()) if dim not in indices]
    table = product.sum(dim=rest) if rest else product
    dims = sorted(indices)
    grids = [_along(indices[dim], axis, len(dims)) for axis, dim in enumerate(dims)]
    return table[tuple(grids)].flatten(1).sum(dim=1)


def _along(indices: torch.Tensor, axis: int, axes: int) -> torch.Tensor:
    """``(width, multiplicity)`` -> the same with the multiplicity as one of several axes."""
    shape = [1] * axes
    shape[axis] = -1
    return indices.view(len(indices), *shape)
