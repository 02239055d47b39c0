"""Building blocks that the reference separators share; attribute names are those of published checkpoints."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunegraph.errors import InputError


class GlobalLayerNorm(nn.Module):
    r"""Normalises each item of a batch over channels and time together (gLN).

    .. math:: y_{c,t} = \gamma_c \frac{x_{c,t} - \mu}{\sqrt{\sigma^2 + 10^{-8}}} + \beta_c

    with the mean :math:`\mu` and the biased variance :math:`\sigma^2` over all channels and frames of the item.

    Args:
        channels: size of the channel axis.

    Reference:
        Luo and Mesgarani, "Conv-TasNet", IEEE/ACM TASLP 2019, section II-D.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, channels, time)`` to the same shape."""
        return F.group_norm(x, 1, self.gamma, self.beta, eps=1e-8)


class ConvNorm(nn.Module):
    """A convolution that keeps the length (or divides it by the stride, rounding up), then gLN."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, groups=groups, bias=bias)
        self.norm = GlobalLayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, inputs, time)`` to ``(batch, outputs, ceil(time / stride))``."""
        y: Tensor = self.norm(self.conv(x))
        return y


class ConvNormAct(nn.Module):
    """A 1x1 convolution, gLN, and a PReLU with one slope for all channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 1)
        self.norm = GlobalLayerNorm(outputs)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Takes ``(batch, inputs, time)`` to ``(batch, outputs, time)``."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class Pyramid(nn.ModuleList):
    """Depthwise convolutions with gLN, each but the first halving the length: a map of every time scale."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__(
            ConvNorm(channels, channels, 5, stride=1 if level == 0 else 2, groups=channels) for level in range(levels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Takes ``(batch, channels, time)`` to one map per level, finest first: lengths T, ceil(T/2), ceil(T/4)..."""
        maps = []
        for layer in self:
            x = layer(x)
            maps.append(x)
        return maps


def nearest(x: Tensor, frames: int) -> Tensor:
    """Resizes ``(batch, channels, time)`` to ``(batch, channels, frames)``, repeating or dropping frames."""
    return F.interpolate(x, size=frames, mode="nearest")


def merging_layer(channels: int) -> nn.Sequential:
    """Scales and shifts each channel, then a PReLU: what a recurrent block sees from the second time on."""
    return nn.Sequential(nn.Conv1d(channels, channels, 1, groups=channels), nn.PReLU())


def repeat(block: nn.Module, merge: nn.Module, mixture: Tensor, times: int) -> Tensor:
    """Applies one block several times: x_1 = block(mixture), x_i = block(merge(mixture + x_{i-1}))."""
    estimate: Tensor = block(mixture)
    for _ in range(times - 1):
        estimate = block(merge(mixture + estimate))
    return estimate


class MaskingSeparator(nn.Module, ABC):
    """Learned filters, a separator that estimates a mask for every source, and a decoder back to waveforms.

    The masks are rectified but not bounded; the encoder is linear. The decoder sees the masked features of all sources
    at once, so it can take from one output what it gives to another.

    Args:
        basis: number of the encoder's filters.
        kernel: length of the filters, in samples.
        stride: hop of the filters, in samples.
        channels: width of the separator's input and output.
        sources: number of outputs.
        separator: makes the module that takes ``(batch, channels, frames)`` to the same shape; called between the
            layers before and behind it, so that a seed initialises the layers in the order in which they are applied.
        output_padding: samples that the decoder adds at its end, so that it gives back the length that went in.
    """

    def __init__(
        self,
        *,
        basis: int,
        kernel: int,
        stride: int,
        channels: int,
        sources: int,
        separator: Callable[[], nn.Module],
        output_padding: int = 0,
    ) -> None:
        super().__init__()
        self.num_sources, self.enc_num_basis = sources, basis
        self.encoder = nn.Conv1d(1, basis, kernel, stride, padding=kernel // 2, bias=False)
        nn.init.xavier_uniform_(self.encoder.weight)
        self.ln = GlobalLayerNorm(basis)
        self.bottleneck = nn.Conv1d(basis, channels, 1)
        self.sm = separator()
        self.mask_net = nn.Sequential(nn.PReLU(), nn.Conv1d(channels, sources * basis, 1))
        self.mask_nl_class = nn.ReLU()
        self.decoder = nn.ConvTranspose1d(
            sources * basis, sources, kernel, stride, padding=kernel // 2, output_padding=output_padding, bias=False
        )
        nn.init.xavier_uniform_(self.decoder.weight)

    @abstractmethod
    def padding(self, samples: int) -> tuple[int, int]:
        """How many zeros go before and behind a waveform of that many samples."""

    def forward(self, wave: Tensor) -> Tensor:
        """Separates a mixture.

        Args:
            wave: ``(batch, 1, time)``, ``(batch, time)`` or ``(time,)``.

        Returns:
            ``(batch, sources, time)``; ``(sources, time)`` for a waveform without a batch axis.

        Raises:
            InputError: the waveform has another shape.
        """
        batch = _as_batch(wave)
        samples = batch.shape[-1]
        before, behind = self.padding(samples)
        mixture = self.encoder(F.pad(batch, (before, behind)))
        masks = self.mask_net(self.sm(self.bottleneck(self.ln(mixture))))
        masks = self.mask_nl_class(masks.view(len(batch), self.num_sources, self.enc_num_basis, -1))
        sources: Tensor = self.decoder((masks * mixture.unsqueeze(1)).flatten(1, 2))
        sources = sources[..., before : before + samples]
        return sources.squeeze(0) if wave.dim() == 1 else sources


def _as_batch(wave: Tensor) -> Tensor:
    """The waveform as ``(batch, 1, time)``."""
    if wave.dim() == 1:
        return wave[None, None]
    if wave.dim() == 2:
        return wave.unsqueeze(1)
    if wave.dim() == 3 and wave.shape[1] == 1:
        return wave
    raise InputError(
        f"expected one channel of audio as (batch, 1, time), (batch, time) or (time,), got {tuple(wave.shape)}"
    )
