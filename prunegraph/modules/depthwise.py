"""Convolutions that see each channel alone, as multiplications."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DepthwiseConv1d(nn.Conv1d):
    """A depthwise ``Conv1d`` that multiplies shifted copies of its input where that is faster on a CPU.

    With one tap it is a scale, for which the library is ten times slower on one thread. With more, a compiler makes one
    loop of the shifts and of the norms and activations around them; without one, the library's convolution remains.
    """

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether the module could be of this class: an unchanged ``Conv1d``, as many filters as channels."""
        return (
            type(module) is nn.Conv1d
            and module.groups == module.in_channels == module.out_channels > 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        )

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        shifted = self.stride == (1,) and torch.compiler.is_compiling()
        if self.kernel_size == (1,) or shifted:
            return self._shifted(x, weight, bias)
        convolved: Tensor = super()._conv_forward(x, weight, bias)
        return convolved

    def _shifted(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding, step, stride, taps = self.padding[0], self.dilation[0], self.stride[0], weight.shape[-1]
        x = F.pad(x, (int(padding), int(padding))) if padding else x
        past = x.shape[-1] - step * (taps - 1)
        shifts = [x[..., tap * step : tap * step + past : stride] for tap in range(taps)]
        scales = [weight[:, 0, tap, None] for tap in range(taps)]
        total = shifts[0] * scales[0] if bias is None else torch.addcmul(bias[:, None], shifts[0], scales[0])
        for shifted, scale in zip(shifts[1:], scales[1:], strict=True):
            total = torch.addcmul(total, shifted, scale)
        return total
