"""Normalisations: torch's own, functional, and written out as papers' code does it."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


class Norm(nn.Module):
    """torch's normalisation modules on ``(batch, channels, time)``."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kind: Literal[
            "batch",
            "batch without affine",
            "batch without statistics",
            "group 1",
            "group 2",
            "group each",
            "group without affine",
            "instance",
            "instance affine",
            "instance tracked",
        ],
    ) -> None:
        super().__init__()
        kinds = {
            "batch": lambda: nn.BatchNorm1d(channels),
            "batch without affine": lambda: nn.BatchNorm1d(channels, affine=False),
            "batch without statistics": lambda: nn.BatchNorm1d(channels, track_running_stats=False),
            "group 1": lambda: nn.GroupNorm(1, channels),
            "group 2": lambda: nn.GroupNorm(math.gcd(2, channels), channels),
            "group each": lambda: nn.GroupNorm(channels, channels),
            "group without affine": lambda: nn.GroupNorm(1, channels, affine=False),
            "instance": lambda: nn.InstanceNorm1d(channels),
            "instance affine": lambda: nn.InstanceNorm1d(channels, affine=True),
            "instance tracked": lambda: nn.InstanceNorm1d(channels, affine=True, track_running_stats=True),
        }
        self.norm = kinds[kind]()
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class ImageNorm(nn.Module):
    """The 2-d normalisations, on an axis of bands beside time."""

    def __init__(self, channels: int, width: int, *, kind: Literal["batch", "group", "instance", "layer"]) -> None:
        super().__init__()
        self.bands = 2
        self.spread = nn.Conv1d(channels, width * self.bands, 1)
        self.last = kind == "layer"
        kinds = {
            "batch": lambda: nn.BatchNorm2d(width),
            "group": lambda: nn.GroupNorm(1, width),
            "instance": lambda: nn.InstanceNorm2d(width, affine=True),
            "layer": lambda: nn.LayerNorm([self.bands, width]),
        }
        self.norm = kinds[kind]()
        self.out_channels = width * self.bands

    def forward(self, x: Tensor) -> Tensor:
        batch, _, time = x.shape
        x = self.spread(x).view(batch, -1, self.bands, time)
        if self.last:
            return self.norm(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1).flatten(1, 2)
        return self.norm(x).flatten(1, 2)


class LastAxisNorm(nn.Module):
    """Normalisations of the last axis, the channels brought there."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kind: Literal["layer", "layer without affine", "layer without bias", "rms", "rms without affine"],
    ) -> None:
        super().__init__()
        kinds = {
            "layer": lambda: nn.LayerNorm(channels),
            "layer without affine": lambda: nn.LayerNorm(channels, elementwise_affine=False),
            "layer without bias": lambda: nn.LayerNorm(channels, bias=False),
            "rms": lambda: nn.RMSNorm(channels, eps=EPS),
            "rms without affine": lambda: nn.RMSNorm(channels, eps=EPS, elementwise_affine=False),
        }
        self.norm = kinds[kind]()
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class FunctionalNorm(nn.Module):
    """The functional forms, with sizes from attributes and from shapes."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kind: Literal["batch", "group", "instance", "layer by shape", "layer by attribute", "unit", "unit by 1-norm"],
    ) -> None:
        super().__init__()
        self.kind = kind
        self.channels = channels
        self.weight = nn.Parameter(1 + torch.randn(channels) * 0.2)
        self.bias = nn.Parameter(torch.randn(channels) * 0.2)
        self.register_buffer("mean", torch.randn(channels) * 0.1)
        self.register_buffer("var", 0.5 + torch.rand(channels))
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "batch":
            return F.batch_norm(x, self.mean, self.var, self.weight, self.bias)
        if self.kind == "group":
            return F.group_norm(x, 1, self.weight, self.bias, EPS)
        if self.kind == "instance":
            return F.instance_norm(x, weight=self.weight, bias=self.bias)
        if self.kind == "unit":
            return F.normalize(x, dim=1, eps=1e-3) * self.weight[:, None]
        if self.kind == "unit by 1-norm":
            return F.normalize(x, p=1.0, dim=1, eps=1e-3) * self.weight[:, None]
        x = x.transpose(1, 2)
        shape = x.shape[-1:] if self.kind == "layer by shape" else (self.channels,)
        return F.layer_norm(x, shape, self.weight, self.bias, EPS).transpose(1, 2)


class WrittenNorm(nn.Module):
    """Global, channel-wise and root-mean-square normalisation in terms of means and variances."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        over: Literal["all", "channels", "time"],
        statistics: Literal[
            "mean of squares", "var", "std", "var_mean", "sum by shape", "sum by attribute", "rms", "norm"
        ],
        affine: Literal[True, False],
    ) -> None:
        super().__init__()
        self.channels = channels
        self.axes = {"all": (1, 2), "channels": (1,), "time": (2,)}[over]
        self.statistics = statistics
        self.gamma = nn.Parameter(1 + torch.randn(1, channels, 1) * 0.2) if affine else None
        self.beta = nn.Parameter(torch.randn(1, channels, 1) * 0.2) if affine else None
        self.out_channels = channels

    def normalise(self, x: Tensor) -> Tensor:
        axes = self.axes
        if self.statistics == "mean of squares":
            mean = x.mean(dim=axes, keepdim=True)
            return (x - mean) / torch.sqrt(torch.pow(x - mean, 2).mean(dim=axes, keepdim=True) + EPS)
        if self.statistics == "var":
            return (x - x.mean(axes, True)) * torch.rsqrt(torch.var(x, axes, unbiased=False, keepdim=True) + EPS)
        if self.statistics == "std":
            return (x - x.mean(axes, True)) / (torch.std(x, axes, unbiased=len(axes) > 1, keepdim=True) + EPS)
        if self.statistics == "var_mean":
            var, mean = torch.var_mean(x, dim=axes, keepdim=True, unbiased=False)
            return (x - mean).div((var + EPS) ** 0.5)
        if self.statistics == "rms":
            return x / (x * x).mean(dim=axes, keepdim=True).add(EPS).sqrt()
        if self.statistics == "norm":
            count = math.prod(x.shape[axis] for axis in axes)
            return x / (torch.linalg.vector_norm(x, dim=axes, keepdim=True) / math.sqrt(count) + EPS)
        count = math.prod(x.shape[axis] for axis in axes)
        if self.statistics == "sum by attribute":
            count = math.prod(self.channels if axis == 1 else x.size(axis) for axis in axes)
        mean = x.sum(axes, keepdim=True) / count
        return (x - mean) / ((x - mean).square().sum(axes, keepdim=True) / count + EPS).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        y = self.normalise(x)
        return y if self.gamma is None else self.gamma * y + self.beta


class CumulativeNorm(nn.Module):
    """Causal normalisation: at each time the statistics of all channels so far."""

    def __init__(self, channels: int, width: int, *, count: Literal["shape", "attribute", "ones"]) -> None:
        super().__init__()
        self.channels = channels
        self.count = count
        self.gain = nn.Parameter(1 + torch.randn(channels, 1) * 0.2)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        _, channels, time = x.shape
        total, power = x.sum(1).cumsum(-1), x.pow(2).sum(1).cumsum(-1)
        if self.count == "ones":
            counts = torch.ones_like(x).sum(1).cumsum(-1)
        else:
            channels = channels if self.count == "shape" else self.channels
            counts = torch.arange(1, time + 1, dtype=x.dtype, device=x.device) * channels
        mean = total / counts
        var = (power / counts - mean**2).clamp(min=0)
        return self.gain * (x - mean.unsqueeze(1)) / (var.unsqueeze(1) + 1e-3).sqrt()


class BandNorm(nn.Module):
    """The channels, split into bands, each normalised and scaled by itself."""

    def __init__(self, channels: int, width: int, *, kind: Literal["written", "group", "layer"]) -> None:
        super().__init__()
        self.bands = 2
        self.width = width
        self.kind = kind
        self.spread = nn.Conv1d(channels, self.bands * width, 1)
        self.norm = nn.GroupNorm(self.bands, self.bands * width) if kind == "group" else nn.LayerNorm(width)
        self.out_channels = self.bands * width

    def forward(self, x: Tensor) -> Tensor:
        x = self.spread(x)
        if self.kind == "group":
            return self.norm(x)
        x = x.view(x.shape[0], self.bands, self.width, x.shape[-1])
        if self.kind == "layer":
            return self.norm(x.transpose(2, 3)).transpose(2, 3).reshape(x.shape[0], -1, x.shape[-1])
        x = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, unbiased=False) + EPS).sqrt()
        return x.flatten(1, 2)


BLOCKS = (Norm, ImageNorm, LastAxisNorm, FunctionalNorm, WrittenNorm, CumulativeNorm, BandNorm)
