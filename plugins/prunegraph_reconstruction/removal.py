r"""Removes channels one by one, fitting what remains after each.

For a layer that reads features x with coefficients C, second moments H of x and their inverse, removing the features F
and fitting the others adds the error, and changes the coefficients, by

.. math::
    e = \operatorname{tr} C_F^T (H^{-1}_{FF})^{-1} C_F, \qquad C \leftarrow C - H^{-1}_{:F} (H^{-1}_{FF})^{-1} C_F

and the inverse likewise, so that no fit has to be solved anew. With the layer's effects for C, the error is that of the
network's output.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from prunegraph.ir.channels import ChannelGroup
from prunegraph.plugin import LayerMoments

_RIDGE = 1e-4
_PORTION = 32


def removal(group: ChannelGroup, layers: Sequence[LayerMoments]) -> tuple[Tensor, Tensor]:
    """In which order the channels of a group go, and what each adds to the error.

    In each round those go that add least to the error of all layers together: one in 32 of those that are left, at
    least one.

    Returns:
        The channels from the first to go to the last, and what each adds, both of shape ``(width,)``.
    """
    readers = [_Reader(layer, group.name) for layer in layers]
    left = torch.arange(group.width, device=layers[0].moments.device)
    order, added = [], []
    while len(left):
        errors = sum(reader.errors() for reader in readers)
        assert isinstance(errors, Tensor)
        least = errors.argsort(stable=True)[: max(1, len(left) // _PORTION)]
        order.append(left[least])
        added.append(errors[least])
        gone = torch.zeros(len(left), dtype=torch.bool, device=left.device).index_fill_(0, least, True)
        left = left[~gone]
        for reader in readers:
            reader.remove(gone)
    return torch.cat(order), torch.cat(added)


class _Reader:
    """One layer that reads the group, all of its blocks at once.

    Errors and changes of the group's features need the group's part of the inverse alone, and of that what is left.
    """

    def __init__(self, layer: LayerMoments, group: str) -> None:
        features = torch.as_tensor(layer.features[group], device=layer.moments.device)
        of_group = features.flatten()
        ridge = _RIDGE * layer.moments.diagonal(dim1=1, dim2=2).mean(1)
        identity = torch.eye(layer.moments.shape[1], dtype=layer.moments.dtype, device=layer.moments.device)
        tiny = torch.finfo(layer.moments.dtype).tiny
        inverse = torch.linalg.inv(layer.moments + (ridge[:, None, None] + tiny**0.5) * identity)
        self.inverse = inverse[:, of_group[:, None], of_group]
        self.effects = layer.effects[:, of_group]
        self.taps = features.shape[1]

    def errors(self) -> Tensor:
        """What removing each of the channels that are left, and no other, adds; shape ``(channels,)``."""
        blocks, _, outputs = self.effects.shape
        read = self.effects.view(blocks, -1, self.taps, outputs)
        tiles = self.inverse.view(blocks, read.shape[1], self.taps, read.shape[1], self.taps)
        within = tiles.diagonal(dim1=1, dim2=3).movedim(-1, 1)
        errors: Tensor = (read * torch.linalg.solve(within, read)).sum((0, 2, 3))
        return errors

    def remove(self, gone: Tensor) -> None:
        """Fits the other features, and leaves those of the channels where ``gone``, shape ``(channels,)``, is true."""
        features = gone.repeat_interleave(self.taps)
        removed, left = features.nonzero().flatten(), (~features).nonzero().flatten()
        columns = self.inverse[:, left[:, None], removed]
        fit = torch.linalg.solve(self.inverse[:, removed[:, None], removed], columns.mT).mT
        self.inverse = self.inverse[:, left[:, None], left].baddbmm_(fit, columns.mT, alpha=-1)
        self.effects = self.effects[:, left].baddbmm_(fit, self.effects[:, removed], alpha=-1)
