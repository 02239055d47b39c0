"""Spectra and complex numbers."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpectralFilter(nn.Module):
    """Each channel filtered in the frequency domain."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        transform: Literal["stft", "rfft", "fft"],
        filter: Literal["complex", "real", "polar", "atan2", "parts"],  # noqa: A002 - the plain word
    ) -> None:
        super().__init__()
        self.size, self.hop = 4, 2
        self.transform, self.kind = transform, filter
        dtype = torch.get_default_dtype().to_complex()
        self.gain = nn.Parameter(torch.randn(channels, 1, dtype=dtype))
        self.register_buffer("window", torch.hann_window(self.size))
        self.out_channels = channels

    def filtered(self, spectrum: Tensor) -> Tensor:
        """A spectrum ``(batch, channels, frequency)``."""
        if self.kind == "complex":
            return spectrum * self.gain
        if self.kind == "real":
            return spectrum * self.gain.abs()
        if self.kind == "polar":
            magnitude, phase = spectrum.abs(), spectrum.angle()
            magnitude = magnitude * torch.sigmoid(self.gain.real)
            return torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
        if self.kind == "atan2":
            phase = torch.atan2(spectrum.imag, spectrum.real + 1e-3)
            return torch.polar(spectrum.abs(), phase * torch.tanh(self.gain.real))
        parts = torch.view_as_real(spectrum)
        real = parts[..., 0] * self.gain.real - parts[..., 1] * self.gain.imag
        imag = parts.select(-1, 0) * self.gain.imag + parts.select(-1, 1) * self.gain.real
        return torch.view_as_complex(torch.stack([real, imag], dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, time = x.shape
        if self.transform == "rfft":
            return torch.fft.irfft(self.filtered(torch.fft.rfft(x)), n=time)
        if self.transform == "fft":
            return torch.fft.ifft(self.filtered(torch.fft.fft(x))).real
        spectrum = torch.stft(
            x.reshape(-1, time), self.size, self.hop, window=self.window, return_complex=True, pad_mode="constant"
        )
        frequencies, frames = spectrum.shape[-2:]
        spectrum = self.filtered(spectrum.reshape(batch, channels, -1)).reshape(-1, frequencies, frames)
        y = torch.istft(spectrum, self.size, self.hop, window=self.window, length=time)
        return y.view(batch, channels, time)


class SpectralMask(nn.Module):
    """The sum of the channels masked in the frequency domain by a network that sees its spectrum."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        features: Literal["magnitude", "real and imaginary", "log power"],
        mask: Literal["magnitude", "complex", "view_as_complex", "deep filter"],
        sizes: Literal["attribute", "shape"],
        window: Literal["buffer", "made"],
    ) -> None:
        super().__init__()
        self.size, self.hop, self.width = 6, 3, width
        self.makes_window = window == "made"
        self.features, self.mask, self.sizes = features, mask, sizes
        self.bins = self.size // 2 + 1
        inputs = 2 * self.bins if features == "real and imaginary" else self.bins
        self.gather = nn.Conv1d(channels, 1, 1)
        self.hidden = nn.Conv1d(inputs, width, 3, padding=1)
        count = {"magnitude": 1, "deep filter": 4}.get(mask, 2)
        self.make = nn.Conv1d(width, width * count * self.bins, 1)
        self.register_buffer("window", torch.hann_window(self.size))
        self.out_channels = width

    def describe(self, spectrum: Tensor) -> Tensor:
        if self.features == "magnitude":
            return torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-3)
        if self.features == "log power":
            return torch.log(spectrum.abs().pow(2) + 1e-2)
        return torch.cat([torch.real(spectrum), torch.imag(spectrum)], dim=1)

    def apply_mask(self, mask: Tensor, spectrum: Tensor) -> Tensor:
        """``mask`` is ``(batch, width, count, bins, frames)``, the spectrum ``(batch, 1, bins, frames)``."""
        if self.mask == "magnitude":
            return torch.sigmoid(mask[:, :, 0]) * spectrum
        if self.mask == "complex":
            return torch.complex(torch.tanh(mask[:, :, 0]), mask[:, :, 1]) * spectrum
        if self.mask == "view_as_complex":
            return torch.view_as_complex(mask.permute(0, 1, 3, 4, 2).contiguous()) * spectrum
        before = F.pad(spectrum, (1, 0))[..., :-1]
        first, second = (torch.complex(pair[:, :, 0], pair[:, :, 1]) for pair in mask.chunk(2, dim=2))
        return first * spectrum + second * before

    def forward(self, x: Tensor) -> Tensor:
        batch, _, time = x.shape
        x = F.pad(x, (0, self.size))
        signal = self.gather(x).squeeze(1)
        window = torch.hann_window(self.size, dtype=x.dtype, device=x.device) if self.makes_window else self.window
        spectrum = torch.stft(signal, self.size, self.hop, window=window, return_complex=True)
        mask = self.make(torch.relu(self.hidden(self.describe(spectrum))))
        width = self.width if self.sizes == "attribute" else self.hidden.weight.shape[0]
        mask = mask.view(batch, width, -1, self.bins, mask.shape[-1])
        masked = self.apply_mask(mask, spectrum.unsqueeze(1)).flatten(0, 1)
        y = torch.istft(masked, self.size, self.hop, window=window, length=x.shape[-1])
        return y.view(batch, -1, x.shape[-1])[..., :time]


class ComplexLayer(nn.Module):
    """Complex convolutions and linear maps, by halves of the channels or by complex numbers."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        numbers: Literal["halves", "complex tensors", "complex linear", "complex conv"],
        activation: Literal["none", "parts", "modulus"],
    ) -> None:
        super().__init__()
        self.numbers, self.activation = numbers, activation
        dtype = torch.get_default_dtype().to_complex()
        self.spread = nn.Conv1d(channels, 2 * channels, 1)
        if numbers == "complex linear":
            self.linear = nn.Linear(channels, width, dtype=dtype)
        elif numbers == "complex conv":
            self.conv = nn.Conv1d(channels, width, 3, padding=1, dtype=dtype)
        else:
            self.real = nn.Conv1d(channels, width, 3, padding=1)
            self.imag = nn.Conv1d(channels, width, 3, padding=1)
        self.out_channels = 2 * width

    def forward(self, x: Tensor) -> Tensor:
        real, imag = self.spread(x).chunk(2, dim=1)
        if self.numbers == "halves":
            real, imag = self.real(real) - self.imag(imag), self.real(imag) + self.imag(real)
            return torch.cat([torch.relu(real), torch.relu(imag)] if self.activation != "none" else [real, imag], dim=1)
        z = torch.complex(real, imag)
        if self.numbers == "complex linear":
            z = self.linear(z.transpose(1, 2)).transpose(1, 2)
        elif self.numbers == "complex conv":
            z = self.conv(z)
        else:
            z = torch.complex(self.real(z.real) - self.imag(z.imag), self.real(z.imag) + self.imag(z.real))
        if self.activation == "parts":
            z = torch.complex(torch.relu(z.real), torch.tanh(z.imag))
        elif self.activation == "modulus":
            z = z * torch.tanh(z.abs()) / (z.abs() + 0.1)
        return torch.cat([z.real, z.imag], dim=1)


class ComplexPairs(nn.Module):
    """Neighbouring channels taken as complex numbers and turned by an angle that grows with time."""

    def __init__(self, channels: int, width: int, *, turn: Literal["polar", "written", "conjugate"]) -> None:
        super().__init__()
        self.turn = turn
        self.spread = nn.Conv1d(channels, 2 * width, 1)
        self.register_buffer("rates", torch.linspace(0.1, 1.0, width))
        self.out_channels = 2 * width

    def forward(self, x: Tensor) -> Tensor:
        x = self.spread(x).transpose(1, 2).contiguous()
        pairs = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
        times = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        angles = times[:, None] * self.rates
        if self.turn == "polar":
            turned = pairs * torch.polar(torch.ones_like(angles), angles)
        elif self.turn == "conjugate":
            turned = pairs.conj() * torch.exp(1j * angles)
        else:
            turned = pairs * torch.complex(angles.cos(), angles.sin())
        return torch.view_as_real(turned).flatten(-2).transpose(1, 2)


class FilterBank(nn.Module):
    """A fixed matrix from channels to bands and back, as ERB and mel filterbanks are."""

    def __init__(self, channels: int, width: int, *, matrix: Literal["linear", "matmul", "einsum"]) -> None:
        super().__init__()
        self.matrix = matrix
        centres = torch.linspace(0, 1, width).unsqueeze(1)
        bank = F.relu(1 - 2 * (torch.linspace(0, 1, channels) - centres).abs())
        self.register_buffer("bank", bank / bank.sum(dim=1, keepdim=True).clamp(min=0.1))
        self.gain = nn.Conv1d(width, width, 3, padding=1)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.matrix == "linear":
            bands = F.linear(x.transpose(1, 2), self.bank).transpose(1, 2)
        elif self.matrix == "matmul":
            bands = self.bank @ x
        else:
            bands = torch.einsum("bft,wf->bwt", x, self.bank)
        return x * torch.matmul(self.bank.t(), torch.sigmoid(self.gain(bands)))


BLOCKS = (SpectralFilter, SpectralMask, ComplexLayer, ComplexPairs, FilterBank)
