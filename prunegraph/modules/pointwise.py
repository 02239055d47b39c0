"""Convolutions that see one position at a time, as matrix products."""

import torch
from torch import Tensor, nn


class PointwiseConv1d(nn.Conv1d):
    """A ``Conv1d`` with one tap as a matrix product.

    On a CPU with more than one thread the library's convolution brings its input into blocks of channels first, and its
    output out of them, which may take twice as long as the product itself.
    """

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether the module could be of this class: an unchanged ``Conv1d`` that mixes channels and nothing else."""
        return type(module) is nn.Conv1d and _mixes_channels_only(module)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias) if x.dim() == 3 else super()._conv_forward(x, weight, bias)


class PointwiseConv2d(nn.Conv2d):
    """A ``Conv2d`` with one tap as a matrix product, for inputs that lie in memory channel by channel."""

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether the module could be of this class: an unchanged ``Conv2d`` that mixes channels and nothing else."""
        return type(module) is nn.Conv2d and _mixes_channels_only(module)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        multiplies = x.dim() == 4 and x.is_contiguous()
        return _product(x, weight, bias) if multiplies else super()._conv_forward(x, weight, bias)


def _mixes_channels_only(module: nn.Conv1d | nn.Conv2d) -> bool:
    one_to_one = all(n == 1 for n in (*module.kernel_size, *module.stride)) and module.groups == 1
    return one_to_one and (isinstance(module.padding, str) or not any(module.padding))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Of inputs ``(batch, inputs, *positions)`` and weights ``(outputs, inputs, 1, ...)``."""
    positions = x.flatten(2)
    matrices = weight.flatten(1).expand(len(x), -1, -1)
    product = torch.bmm(matrices, positions) if bias is None else torch.baddbmm(bias[:, None], matrices, positions)
    return product.view(*product.shape[:2], *x.shape[2:])
