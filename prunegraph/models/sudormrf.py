"""SuDoRM-RF 1.0x, improved: separate blocks that sample down to five time scales and back up."""

import torch.nn.functional as F
from torch import Tensor, nn

from prunegraph.models.layers import ConvNormAct, GlobalLayerNorm, MaskingSeparator, Pyramid


class SuDoRMRF(MaskingSeparator):
    """SuDoRM-RF in its improved form; the defaults are SuDoRM-RF 1.0x with 2,720,417 parameters.

    Takes ``(batch, 1, time)`` to ``(batch, num_sources, time)``. Arguments and parameters are named as in published
    configurations and checkpoints.

    Args:
        out_channels: channels between the blocks.
        in_channels: channels within a block.
        num_blocks: number of blocks.
        upsampling_depth: time scales in a block.
        enc_num_basis: number of the encoder's filters.
        enc_kernel_size: length of the filters in samples; the stride is half of it.
        num_sources: number of outputs.

    Reference:
        Tzinis et al., "Compute and Memory Efficient Universal Sound Source Separation", JSPS 2022.
    """

    def __init__(
        self,
        out_channels: int = 128,
        in_channels: int = 512,
        num_blocks: int = 16,
        upsampling_depth: int = 5,
        enc_num_basis: int = 512,
        enc_kernel_size: int = 21,
        num_sources: int = 2,
    ) -> None:
        stride = enc_kernel_size // 2
        super().__init__(
            basis=enc_num_basis,
            kernel=enc_kernel_size,
            stride=stride,
            channels=out_channels,
            sources=num_sources,
            separator=lambda: nn.Sequential(
                *(Block(out_channels, in_channels, upsampling_depth) for _ in range(num_blocks))
            ),
            output_padding=stride - 1,
        )
        self.unit = stride * 2**upsampling_depth

    def padding(self, samples: int) -> tuple[int, int]:
        """Fills up the last unit of ``stride * 2 ** upsampling_depth`` samples, so that every halving is exact."""
        return 0, -samples % self.unit


class Block(nn.Module):
    """Maps of several time scales, each added to the next finer one; with a skip connection around them.

    Args:
        channels: width of input and output.
        hidden: width of the maps.
        levels: number of time scales.
    """

    def __init__(self, channels: int, hidden: int, levels: int) -> None:
        super().__init__()
        self.proj_1x1 = ConvNormAct(channels, hidden)
        self.spp_dw = Pyramid(hidden, levels)
        self.final_norm = NormAct(hidden)
        self.res_conv = nn.Conv1d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape; time is a multiple of ``2 ** (levels - 1)``."""
        *finer, merged = self.spp_dw(self.proj_1x1(x))
        for level in reversed(finer):
            merged = level + F.interpolate(merged, scale_factor=2.0, mode="nearest")
        residual: Tensor = self.res_conv(self.final_norm(merged))
        return residual + x


class NormAct(nn.Module):
    """gLN and a PReLU with one slope for all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GlobalLayerNorm(channels)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        y: Tensor = self.act(self.norm(x))
        return y
