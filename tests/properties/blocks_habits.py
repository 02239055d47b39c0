"""Habits of research code: derived layers, functional calls on a layer's weights, loops over channels, odd sizes."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


@dataclass
class Config:
    groups: int
    width: int


class SizedView(nn.Module):
    """A view into groups of channels, its sizes from wherever code takes them."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        origin: Literal[
            "layer", "weight", "bias", "numel", "dict", "dataclass", "property", "rounded", "list", "numpy"
        ],
    ) -> None:
        super().__init__()
        self.groups, self.width = 2, width
        self.origin = origin
        self.spread = nn.Conv1d(channels, 2 * width, 1)
        self.settings = {"groups": 2, "width": width}
        self.config = Config(2, width)
        self.widths = [2 * width, width]
        self.out_channels = width

    @property
    def inner(self) -> int:
        return self.spread.out_channels // self.groups

    def width_of(self, x: Tensor) -> int:
        return {
            "layer": lambda: self.spread.out_channels // self.groups,
            "weight": lambda: self.spread.weight.shape[0] // 2,
            "bias": lambda: len(self.spread.bias) // 2,
            "numel": lambda: x.numel() // (x.size(0) * x.size(2) * 2),
            "dict": lambda: self.settings["width"],
            "dataclass": lambda: self.config.width,
            "property": lambda: self.inner,
            "rounded": lambda: int(self.width * 1.0 + 0.5),
            "list": lambda: self.widths[-1],
            "numpy": lambda: int(np.prod(x.shape[1:2])) // 2,
        }[self.origin]()

    def forward(self, x: Tensor) -> Tensor:
        x = self.spread(x)
        first, second = x.reshape(x.shape[0], 2, self.width_of(x), x.shape[-1]).unbind(dim=1)
        return first * torch.sigmoid(second)


class ChannelLoop(nn.Module):
    """Channels taken one by one."""

    def __init__(
        self, channels: int, width: int, *, over: Literal["range of shape", "range of attribute", "unbind", "split"]
    ) -> None:
        super().__init__()
        self.channels = channels
        self.over = over
        self.each = nn.Conv1d(1, 1, 3, padding=1)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.over == "unbind":
            return torch.cat([self.each(channel.unsqueeze(1)) for channel in x.unbind(dim=1)], dim=1)
        if self.over == "split":
            return torch.cat([self.each(channel) for channel in x.split(1, dim=1)], dim=1)
        count = x.shape[1] if self.over == "range of shape" else self.channels
        return torch.cat([self.each(x[:, i : i + 1]) for i in range(count)], dim=1)


class AlongChannels(nn.Module):
    """Operations for which the order or number of the channels matters."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        op: Literal[
            "cumsum", "diff", "sort", "median", "rfft", "avg_pool", "interpolate", "cumprod", "argmax", "tensor"
        ]
        | Literal["quantile"],
    ) -> None:
        super().__init__()
        self.op = op
        self.channels = channels
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.op == "cumsum":
            return x.cumsum(dim=1) * 0.2
        if self.op == "cumprod":
            return torch.tanh(x).cumprod(dim=1)
        if self.op == "diff":
            return torch.cat([x[:, :1], torch.diff(x, dim=1)], dim=1)
        if self.op == "sort":
            return x.sort(dim=1).values
        if self.op == "median":
            return x - x.median(dim=1, keepdim=True).values
        if self.op == "quantile":
            return x - x.quantile(0.3, dim=1, keepdim=True)
        if self.op == "rfft":
            spectrum = torch.fft.rfft(x, dim=1)
            return torch.fft.irfft(spectrum * 0.5, n=x.shape[1], dim=1)
        if self.op == "avg_pool":
            return F.avg_pool2d(x.unsqueeze(1), 3, stride=1, padding=1).squeeze(1)
        if self.op == "interpolate":
            half = F.interpolate(x.unsqueeze(1), scale_factor=(0.5, 1), mode="nearest")
            return F.interpolate(half, size=x.shape[1:]).squeeze(1)
        if self.op == "tensor":
            return x * torch.tensor([0.5 + 0.1 * i for i in range(self.channels)], dtype=x.dtype).view(1, -1, 1)
        winner = F.one_hot(x.argmax(dim=1), x.shape[1]).to(x.dtype)
        return x * winner.transpose(1, 2)


class CausalConv(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0))
        return F.conv1d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class GlobalNorm(nn.GroupNorm):
    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


class Projection(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class OutputsOnly(nn.LSTM):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2))[0].transpose(1, 2)


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        return (x + super().forward(x, x, x, need_weights=False)[0]).transpose(1, 2)


class DerivedLayer(nn.Module):
    """Layers derived from torch's own, with a forward of their own."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        layer: Literal["conv", "grouped conv", "layer norm", "group norm", "linear", "lstm", "attention"],
    ) -> None:
        super().__init__()
        self.enter = nn.Conv1d(channels, 2 * width, 1)
        kinds = {
            "conv": lambda: CausalConv(2 * width, width, 3, dilation=2),
            "grouped conv": lambda: CausalConv(2 * width, width, 3, groups=width),
            "layer norm": lambda: ChannelNorm(2 * width),
            "group norm": lambda: GlobalNorm(2 * width),
            "linear": lambda: Projection(2 * width, width),
            "lstm": lambda: OutputsOnly(2 * width, width, batch_first=True),
            "attention": lambda: SelfAttention(2 * width, 2, batch_first=True),
        }
        self.layer = kinds[layer]()
        self.out_channels = 2 * width if layer in ("layer norm", "group norm", "attention") else width

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.enter(x))


class FunctionalLayer(nn.Module):
    """Functional calls on parameters, with groups and sizes from attributes and shapes."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        call: Literal["conv of layer", "depthwise by attribute", "depthwise by shape", "transposed", "bilinear", "lstm"]
        | Literal["flipped"],
    ) -> None:
        super().__init__()
        self.channels = channels
        self.call = call
        self.layer = nn.Conv1d(channels, width, 3, padding=1)
        self.taps = nn.Parameter(torch.randn(channels, 1, 3) * 0.5)
        self.square = nn.Parameter(torch.randn(width, channels, channels) * 0.2)
        self.rnn = nn.LSTM(channels, width, batch_first=True)
        self.out_channels = channels if call.startswith("depthwise") or call in ("transposed", "flipped") else width

    def forward(self, x: Tensor) -> Tensor:
        if self.call == "conv of layer":
            return F.conv1d(x, self.layer.weight, self.layer.bias, padding="same")
        if self.call == "depthwise by attribute":
            return F.conv1d(x, self.taps, padding=1, groups=self.channels)
        if self.call == "depthwise by shape":
            return F.conv1d(F.pad(x, (2, 0)), self.taps, groups=x.shape[1])
        if self.call == "transposed":
            return F.conv_transpose1d(torch.relu(self.layer(x)), self.layer.weight, padding=1)
        if self.call == "flipped":
            weight = self.layer.weight.flip(-1).transpose(0, 1)
            return F.conv1d(torch.tanh(self.layer(x)), weight, padding=1)
        if self.call == "bilinear":
            y = x.transpose(1, 2)
            return F.bilinear(y, torch.tanh(y), self.square).transpose(1, 2)
        hidden = x.new_zeros(1, x.shape[0], self.rnn.hidden_size)
        y, _ = self.rnn(x.transpose(1, 2), (hidden, hidden.clone()))
        return y.transpose(1, 2)


class Softened(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return F.softplus(weight) - 0.5


class Normalised(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))


class Parametrized(nn.Module):
    """Weights under parametrizations of the author's own, one of them on two layers at once."""

    def __init__(
        self, channels: int, width: int, *, parametrization: Literal["pointwise", "normalised", "two", "of bias"]
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, 3, padding=1)
        self.linear = nn.Linear(width, width)
        wanted = {"pointwise": [Softened()], "normalised": [Normalised()], "two": [Softened(), Normalised()]}
        for step in wanted.get(parametrization, []):
            parametrize.register_parametrization(self.conv, "weight", step)
        if parametrization == "of bias":
            parametrize.register_parametrization(self.linear, "bias", Softened())
            parametrize.register_parametrization(self.conv, "bias", Softened())
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.tanh(self.conv(x)).transpose(1, 2)).transpose(1, 2)


class PackedRecurrent(nn.Module):
    """Sequences of unequal lengths, packed for a recurrent layer."""

    def __init__(
        self, channels: int, width: int, *, kind: Literal["lstm", "gru"], bidirectional: Literal[False, True]
    ) -> None:
        super().__init__()
        make = nn.LSTM if kind == "lstm" else nn.GRU
        self.rnn = make(channels, width, batch_first=True, bidirectional=bidirectional)
        self.out_channels = 2 * width if bidirectional else width

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[-1]
        lengths = torch.tensor([time - index % 3 for index in range(x.shape[0])])
        packed = pack_padded_sequence(x.transpose(1, 2), lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=time)
        return y.transpose(1, 2)


class Similarity(nn.Module):
    """Distances of each frame's features to learnt or found points."""

    def __init__(
        self, channels: int, width: int, *, measure: Literal["cosine", "dot", "cdist", "written", "attractors"]
    ) -> None:
        super().__init__()
        self.measure = measure
        self.points = nn.Parameter(torch.randn(width, channels))
        self.out_channels = 2 * channels if measure == "attractors" else width

    def forward(self, x: Tensor) -> Tensor:
        if self.measure == "cosine":
            return F.cosine_similarity(x.unsqueeze(1), self.points[None, :, :, None], dim=2, eps=1e-3)
        if self.measure == "dot":
            return torch.einsum("pc,bct->bpt", self.points, x) / math.sqrt(self.points.shape[1])
        if self.measure == "cdist":
            return torch.cdist(self.points.expand(x.shape[0], -1, -1), x.transpose(1, 2))
        if self.measure == "written":
            difference = x.unsqueeze(1) - self.points[None, :, :, None]
            return torch.exp(-difference.pow(2).mean(dim=2))
        assignment = torch.softmax(torch.matmul(self.points, x), dim=1)
        attractors = torch.bmm(x, assignment.mT) / (assignment.sum(dim=-1).unsqueeze(1) + 0.1)
        strongest = attractors.mean(dim=-1, keepdim=True)
        return torch.cat([x, x * strongest], dim=1)


class DynamicFilters(nn.Module):
    """Filters that are computed, for each channel or for each group of channels, at every time."""

    def __init__(
        self, channels: int, width: int, *, shared: Literal["by none", "by group"], taps: Literal[3, 1, 7, 15]
    ) -> None:
        super().__init__()
        self.taps = taps
        self.groups = width if shared == "by none" else 2
        self.out_channels = self.groups if shared == "by none" else 2 * width
        self.spread = nn.Conv1d(channels, self.out_channels, 1)
        self.filters = nn.Conv1d(self.out_channels, self.groups * taps, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spread(x)
        batch, channels, time = x.shape
        weight = self.filters(x).view(batch, self.groups, self.taps, time).unsqueeze(2)
        rows = F.pad(x, (self.taps // 2, self.taps // 2)).unfold(2, self.taps, 1).transpose(2, 3)
        rows = rows.reshape(batch, self.groups, -1, self.taps, time)
        return (weight * rows).sum(dim=3).reshape(batch, channels, time)


class UnevenCut(nn.Module):
    """A share of the channels, counted from their number, is treated in another way."""

    def __init__(
        self, channels: int, width: int, *, cut: Literal["split", "slices", "second part"], parts: Literal[2, 3, 4]
    ) -> None:
        super().__init__()
        self.cut, self.parts = cut, parts
        self.out_channels = width * parts
        self.spread = nn.Conv1d(channels, self.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spread(x)
        part = x.shape[1] // self.parts
        if self.cut == "split":
            one, other = torch.split(x, [part, x.shape[1] - part], dim=1)
        elif self.cut == "slices":
            one, other = x[:, :part], x[:, part:]
        else:
            one, other = x[:, part : 2 * part], torch.cat([x[:, :part], x[:, 2 * part :]], dim=1)
        return torch.cat([torch.tanh(one), other], dim=1)


BLOCKS = (
    SizedView,
    ChannelLoop,
    AlongChannels,
    DerivedLayer,
    FunctionalLayer,
    Parametrized,
    PackedRecurrent,
    Similarity,
    DynamicFilters,
    UnevenCut,
)
