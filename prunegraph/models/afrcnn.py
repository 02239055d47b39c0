"""A-FRCNN: one recurrent block in which neighbouring time scales are fused all at once."""

import math

import torch
from torch import Tensor, nn

from prunegraph.models.layers import ConvNorm, ConvNormAct, MaskingSeparator, Pyramid, merging_layer, nearest, repeat


class AFRCNN(MaskingSeparator):
    """A-FRCNN in its concatenating form; the defaults are A-FRCNN-12 with 5,127,688 parameters.

    Takes ``(batch, 1, time)`` to ``(batch, num_sources, time)``. Arguments and parameters are named as in published
    configurations and checkpoints. The number of parameters does not depend on ``num_blocks``.

    Args:
        out_channels: channels between the iterations.
        in_channels: channels within the block.
        num_blocks: how often the block is applied.
        upsampling_depth: time scales in the block, at least 2.
        enc_kernel_size: length of the encoder's filters in samples; the stride is half of it.
        enc_num_basis: number of the encoder's filters.
        num_sources: number of outputs.

    Reference:
        Hu et al., "Speech Separation Using an Asynchronous Fully Recurrent Convolutional Neural Network", NeurIPS 2021.
    """

    def __init__(
        self,
        out_channels: int = 512,
        in_channels: int = 512,
        num_blocks: int = 12,
        upsampling_depth: int = 4,
        enc_kernel_size: int = 41,
        enc_num_basis: int = 512,
        num_sources: int = 2,
    ) -> None:
        stride = enc_kernel_size // 2
        super().__init__(
            basis=enc_num_basis,
            kernel=enc_kernel_size,
            stride=stride,
            channels=out_channels,
            sources=num_sources,
            separator=lambda: Separator(out_channels, in_channels, upsampling_depth, num_blocks),
            output_padding=stride - 1,
        )
        self.unit = math.lcm(stride, 2**upsampling_depth)

    def padding(self, samples: int) -> tuple[int, int]:
        """Fills up the last unit of ``lcm(stride, 2 ** upsampling_depth)`` samples."""
        return 0, -samples % self.unit


class Separator(nn.Module):
    """Applies one fusion block ``times`` times, with the same weights."""

    def __init__(self, channels: int, hidden: int, levels: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.blocks = FusionBlock(channels, hidden, levels)
        self.concat_block = merging_layer(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        return repeat(self.blocks, self.concat_block, x, self.times)


class FusionBlock(nn.Module):
    """Maps of several time scales; each is fused with the next finer and the next coarser one, all at the same time.

    Args:
        channels: width of input and output.
        hidden: width of the maps.
        levels: number of time scales.
    """

    def __init__(self, channels: int, hidden: int, levels: int) -> None:
        super().__init__()
        self.proj_1x1 = ConvNormAct(channels, hidden)
        self.spp_dw = Pyramid(hidden, levels)
        # The finest level has no finer one to halve: its place stays empty.
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList([] if level == 0 else [ConvNorm(hidden, hidden, 5, stride=2, groups=hidden)])
            for level in range(levels)
        )
        self.concat_layer = nn.ModuleList(
            ConvNormAct(hidden * (2 if level in (0, levels - 1) else 3), hidden) for level in range(levels)
        )
        self.last_layer = nn.Sequential(ConvNormAct(hidden * levels, hidden))
        self.res_conv = nn.Conv1d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        maps = self.spp_dw(self.proj_1x1(x))
        fused = [layer(self._neighbours(maps, level)) for level, layer in enumerate(self.concat_layer)]
        frames = maps[0].shape[-1]
        gathered = torch.cat([fused[0], *(nearest(coarse, frames) for coarse in fused[1:])], dim=1)
        residual: Tensor = self.res_conv(self.last_layer(gathered))
        return residual + x

    def _neighbours(self, maps: list[Tensor], level: int) -> Tensor:
        """The next finer map, halved; the level's own; the next coarser one, stretched: one after the other."""
        finer = [layer(maps[level - 1]) for layer in self.fuse_layers[level].children()]
        coarser = [nearest(coarse, maps[level].shape[-1]) for coarse in maps[level + 1 : level + 2]]
        return torch.cat([*finer, maps[level], *coarser], dim=1)
