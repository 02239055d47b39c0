"""TDANet: one recurrent block in which a summary of all time scales modulates each of them, coarse to fine."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunegraph.models.layers import ConvNorm, ConvNormAct, MaskingSeparator, Pyramid, merging_layer, nearest, repeat

_DROPOUT = 0.1
_HEADS = 8


class TDANet(MaskingSeparator):
    """TDANet in its best variant, published as ``TDANetBest``; the defaults give its 2,353,479 parameters.

    Takes ``(batch, 1, time)`` to ``(batch, num_sources, time)``. Arguments and parameters are named as in published
    configurations and checkpoints. As published, its attention lets the items of a batch see each other: what comes out
    for one mixture depends on those beside it. Separate one at a time where that matters.

    Args:
        out_channels: channels between the iterations.
        in_channels: channels within the block, a multiple of 8 (the attention heads).
        num_blocks: how often the block is applied.
        upsampling_depth: time scales in the block, at least 3.
        enc_kernel_size: length of the encoder's filters in milliseconds; the stride is a quarter of it.
        num_sources: number of outputs.
        sample_rate: in Hz.

    Reference:
        Li et al., "An efficient encoder-decoder architecture with top-down attention for speech separation", ICLR 2023.
    """

    def __init__(
        self,
        out_channels: int = 128,
        in_channels: int = 512,
        num_blocks: int = 16,
        upsampling_depth: int = 5,
        enc_kernel_size: int = 4,
        num_sources: int = 2,
        sample_rate: int = 16000,
    ) -> None:
        kernel = enc_kernel_size * sample_rate // 1000
        super().__init__(
            basis=kernel // 2 + 1,
            kernel=kernel,
            stride=kernel // 4,
            channels=out_channels,
            sources=num_sources,
            separator=lambda: Separator(out_channels, in_channels, upsampling_depth, num_blocks),
        )
        self.kernel, self.stride = kernel, kernel // 4

    def padding(self, samples: int) -> tuple[int, int]:
        """Fills up the last hop (by a whole filter if it is full), and adds what filters overlap at either end."""
        rest = self.kernel - (self.stride + samples % self.kernel) % self.kernel
        overlap = self.kernel - self.stride
        return overlap, rest + overlap


class Separator(nn.Module):
    """Applies one top-down attention block ``times`` times, with the same weights."""

    def __init__(self, channels: int, hidden: int, levels: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.unet = TopDownBlock(channels, hidden, levels)
        self.concat_block = merging_layer(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        return repeat(self.unet, self.concat_block, x, self.times)


class TopDownBlock(nn.Module):
    """Maps of several time scales, modulated by their common summary, then each by the next coarser one.

    Args:
        channels: width of input and output.
        hidden: width of the maps.
        levels: number of time scales.
    """

    def __init__(self, channels: int, hidden: int, levels: int) -> None:
        super().__init__()
        self.proj_1x1 = ConvNormAct(channels, hidden)
        self.spp_dw = Pyramid(hidden, levels)
        self.loc_glo_fus = nn.ModuleList(Modulation(hidden, 1) for _ in range(levels))
        self.res_conv = nn.Conv1d(hidden, channels, 1)
        self.globalatt = GlobalAttention(hidden)
        self.last_layer = nn.ModuleList(Modulation(hidden, 5) for _ in range(levels - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        maps = self.spp_dw(self.proj_1x1(x))
        frames = maps[-1].shape[-1]
        pooled = [F.adaptive_avg_pool1d(level, frames) for level in maps]
        summary = self.globalatt(torch.stack(pooled).sum(dim=0))
        fused = [modulate(level, summary) for modulate, level in zip(self.loc_glo_fus, maps, strict=True)]
        residual: Tensor = self.res_conv(self._top_down(fused))
        return residual + x

    def _top_down(self, fused: list[Tensor]) -> Tensor:
        """From the last but one level to the finest.

        As published, the first step takes the next *finer* level for its global input, and the coarsest level goes
        unused; checkpoints were trained like that.
        """
        coarser = fused[-3]
        for modulate, level in reversed(list(zip(self.last_layer, fused[:-1], strict=True))):
            coarser = modulate(level, coarser)
        return coarser


class Modulation(nn.Module):
    """Gates a local map by a global one and adds a second view of the global one; every convolution is depthwise."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.local_embedding = ConvNorm(channels, channels, kernel, groups=channels, bias=False)
        self.global_embedding = ConvNorm(channels, channels, kernel, groups=channels, bias=False)
        self.global_act = ConvNorm(channels, channels, kernel, groups=channels, bias=False)

    def forward(self, local: Tensor, context: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` and a context of any length to the shape of the first."""
        frames = local.shape[-1]
        gate = nearest(torch.sigmoid(self.global_act(context)), frames)
        y: Tensor = self.local_embedding(local) * gate + nearest(self.global_embedding(context), frames)
        return y


class GlobalAttention(nn.Module):
    """Attention, then a convolutional feed-forward network, each with a skip connection and stochastic depth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = BatchAttention(channels)
        self.mlp = FeedForward(channels, 2 * channels)
        self.drop_path = StochasticDepth(_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        x = x + self.drop_path(self.attn(x))
        y: Tensor = x + self.drop_path(self.mlp(x))
        return y


class BatchAttention(nn.Module):
    """Self-attention as published: frame by frame, among the items of the batch.

    The axes are not those that the attention expects, so that no frame sees another one. For a batch of one, queries
    and keys have no effect. The sum before the last norm adds the attention's result to itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pos_enc = PositionalEncoding(channels)
        self.attn_in_norm = nn.LayerNorm(channels)
        self.attn = nn.MultiheadAttention(channels, _HEADS, dropout=_DROPOUT)
        self.dropout = nn.Dropout(_DROPOUT)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        frames = self.pos_enc(self.attn_in_norm(x.transpose(1, 2)))
        attended = self.attn(frames, frames, frames, need_weights=False)[0]
        y: Tensor = self.norm(attended + self.dropout(attended))
        return y.transpose(1, 2)


class PositionalEncoding(nn.Module):
    """Adds sines and cosines of the frame's number, for up to 10,000 frames.

    Reference:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.5.
    """

    pe: Tensor

    def __init__(self, channels: int, frames: int = 10000) -> None:
        super().__init__()
        rates = torch.exp(torch.arange(0, channels, 2).float() * -(math.log(10000.0) / channels))
        angles = torch.arange(frames).float()[:, None] * rates
        self.register_buffer("pe", torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None])

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, time, channels)`` to the same shape."""
        return x + self.pe[:, : x.shape[1]]


class FeedForward(nn.Module):
    """Widens each frame, mixes neighbouring frames channel by channel, and narrows again."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = ConvNorm(channels, hidden, bias=False)
        self.dwconv = nn.Conv1d(hidden, hidden, 5, padding=2, groups=hidden)
        self.fc2 = ConvNorm(hidden, channels, bias=False)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        hidden = self.dropout(F.relu(self.dwconv(self.fc1(x))))
        y: Tensor = self.dropout(self.fc2(hidden))
        return y


class StochasticDepth(nn.Module):
    """While training, drops a whole item of the batch at the given rate and scales up the others to make up for it.

    Reference:
        Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        return x * F.dropout(x.new_ones(len(x), 1, 1), self.rate, self.training)
