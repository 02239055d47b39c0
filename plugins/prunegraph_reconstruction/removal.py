r"""Removes channels one by one, fitting what remains after each.

For a layer that reads features x with coefficients C, second moments H of x and their inverse, removing the features F
and fitting the others adds the error, and changes the coefficients, by

.. math::
    e = \operatorname{tr} C_F^T (H^{-1}_{FF})^{-1} C_F, \qquad C \leftarrow C - H^{-1}_{:F} (H^{-1}_{FF})^{-1} C_F

and the inverse likewise, so that no fit has to be solved anew.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from prunegraph.ir.channels import ChannelGroup
from prunegraph.plugin import LayerMoments

_RIDGE = 1e-4
_PORTION = 32


def removal_order(group: ChannelGroup, layers: Sequence[LayerMoments]) -> Tensor:
    """The channels of a group from the first to go to the last, shape ``(width,)``.

    In each round those go that add least to the error of all layers together, each relative to its output's energy: one
    in 32 of those that are left, at least one.
    """
    readers = [_Reader(layer, group.name) for layer in layers]
    left = torch.arange(group.width, device=layers[0].moments.device)
    order = []
    while len(left):
        errors = sum(reader.errors(left) for reader in readers)
        assert isinstance(errors, Tensor)
        least = errors.argsort(stable=True)[: max(1, len(left) // _PORTION)]
        order.append(left[least])
        for reader in readers:
            reader.remove(left[least])
        stays = torch.ones(len(left), dtype=torch.bool, device=left.device)
        stays[least] = False
        left = left[stays]
    return torch.cat(order)


class _Reader:
    """One layer that reads the group, all of its blocks at once."""

    def __init__(self, layer: LayerMoments, group: str) -> None:
        ridge = _RIDGE * layer.moments.diagonal(dim1=1, dim2=2).mean(1)
        identity = torch.eye(layer.moments.shape[1], dtype=layer.moments.dtype, device=layer.moments.device)
        tiny = torch.finfo(layer.moments.dtype).tiny
        self.inverse = torch.linalg.inv(layer.moments + (ridge[:, None, None] + tiny**0.5) * identity)
        self.coefficients = layer.coefficients.clone()
        self.features = torch.as_tensor(layer.features[group], device=layer.moments.device)
        energy = (self.coefficients * (layer.moments @ self.coefficients)).sum()
        self.energy = energy.clamp_min(tiny)

    def errors(self, channels: Tensor) -> Tensor:
        """What removing each of the channels, and no other, adds; shape ``(channels,)``."""
        features = self.features[channels]
        read = self.coefficients[:, features]
        within = self.inverse[:, features[:, :, None], features[:, None, :]]
        errors: Tensor = (read * torch.linalg.solve(within, read)).sum((0, 2, 3)) / self.energy
        return errors

    def remove(self, channels: Tensor) -> None:
        """Fits the other features, and leaves the channels' own out of all that follows."""
        features = self.features[channels].flatten()
        columns = self.inverse[:, :, features]
        rows = torch.cat([self.inverse[:, features], self.coefficients[:, features]], dim=2)
        change = columns @ torch.linalg.solve(columns[:, features], rows)
        size = self.inverse.shape[1]
        self.inverse, self.coefficients = self.inverse - change[:, :, :size], self.coefficients - change[:, :, size:]
