"""Reductions over channels and time, pooling and resampling."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        *,
        pool: Literal["mean", "adaptive", "max", "adaptive max", "std", "mean and max", "2-d", "max 2-d"],
        layer: Literal["linear", "conv"],
    ) -> None:
        super().__init__()
        self.pool = pool
        inputs = 2 * channels if pool == "mean and max" else channels
        make = nn.Linear if layer == "linear" else lambda a, b: nn.Conv1d(a, b, 1)
        self.is_linear = layer == "linear"
        self.reduce = make(inputs, width)
        self.expand = make(width, channels)
        self.out_channels = channels

    def squeeze(self, x: Tensor) -> Tensor:
        if self.pool == "mean":
            return x.mean(dim=2)
        if self.pool == "adaptive":
            return F.adaptive_avg_pool1d(x, 1).squeeze(-1)
        if self.pool == "max":
            return x.max(dim=-1).values
        if self.pool == "adaptive max":
            return F.adaptive_max_pool1d(x, 1)[..., 0]
        if self.pool == "std":
            return (x.var(dim=-1, correction=0) + 1e-3).sqrt()
        if self.pool == "2-d":
            return F.adaptive_avg_pool2d(x.unsqueeze(2), 1).flatten(1)
        if self.pool == "max 2-d":
            return F.adaptive_max_pool2d(x.unsqueeze(2), (1, 1)).flatten(1)
        return torch.cat([x.mean(-1), torch.amax(x, -1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.squeeze(x)
        if self.is_linear:
            return x * torch.sigmoid(self.expand(F.relu(self.reduce(y)))).unsqueeze(-1)
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(y.unsqueeze(-1)))))


class ChannelPool(nn.Module):
    """A gate over time made from reductions over all channels."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        pool: Literal["mean", "max", "amin", "sum", "norm", "logsumexp", "var", "mean of squares", "prod"],
    ) -> None:
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv1d(2, 1, 3, padding=1)
        self.out_channels = channels

    def reduce(self, x: Tensor) -> Tensor:
        if self.pool == "mean":
            return x.mean(dim=1, keepdim=True)
        if self.pool == "max":
            return x.max(dim=1, keepdim=True)[0]
        if self.pool == "amin":
            return x.amin(dim=1, keepdim=True)
        if self.pool == "sum":
            return x.sum(1, keepdim=True)
        if self.pool == "norm":
            return (x + 0.1).norm(dim=1, keepdim=True)
        if self.pool == "logsumexp":
            return torch.logsumexp(x, dim=1, keepdim=True)
        if self.pool == "var":
            return x.var(dim=1, unbiased=False, keepdim=True)
        if self.pool == "prod":
            return torch.tanh(x).prod(dim=1, keepdim=True)
        return (x**2).mean(1).unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.reduce(x), x.mean(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(both))


class TransformAverage(nn.Module):
    """Groups of channels told of their average: transform, average, concatenate."""

    def __init__(self, channels: int, width: int, *, sizes: Literal["attribute", "shape"]) -> None:
        super().__init__()
        self.groups, self.width = 2, width
        self.sizes = sizes
        self.spread = nn.Conv1d(channels, self.groups * width, 1)
        self.transform = nn.Linear(width, width)
        self.average = nn.Linear(width, width)
        self.concatenate = nn.Linear(2 * width, width)
        self.out_channels = self.groups * width

    def forward(self, x: Tensor) -> Tensor:
        batch, _, time = x.shape
        width = self.width if self.sizes == "attribute" else -1
        x = self.spread(x).view(batch, self.groups, width, time).permute(0, 3, 1, 2)
        y = torch.tanh(self.transform(x))
        mean = self.average(y.mean(2)).unsqueeze(2).expand_as(y)
        y = self.concatenate(torch.cat([y, mean], dim=-1)) + x
        return y.permute(0, 2, 3, 1).reshape(batch, -1, time)


class AttentivePool(nn.Module):
    """Means over time weighted by a softmax, appended to each frame."""

    def __init__(self, channels: int, width: int, *, weights: Literal["of each channel", "of all", "einsum"]) -> None:
        super().__init__()
        self.weights = weights
        self.score = nn.Conv1d(channels, channels if weights == "of each channel" else 1, 1)
        self.out_channels = 2 * channels

    def forward(self, x: Tensor) -> Tensor:
        weights = self.score(x).softmax(dim=-1)
        if self.weights == "einsum":
            pooled = torch.einsum("bit,bct->bc", weights, x).unsqueeze(-1)
        else:
            pooled = (weights * x).sum(dim=-1, keepdim=True)
        return torch.cat([x, pooled.expand(-1, -1, x.shape[-1])], dim=1)


class PoolAndInterpolate(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        *,
        pool: Literal["avg", "max", "adaptive avg", "adaptive max", "lp", "2-d"],
        up: Literal["nearest", "linear", "repeat_interleave", "module"],
    ) -> None:
        super().__init__()
        self.pool, self.up = pool, up
        self.conv = nn.Conv1d(channels, width, 1)
        self.upsample = nn.Upsample(scale_factor=2)
        self.out_channels = width

    def down(self, x: Tensor) -> Tensor:
        if self.pool == "avg":
            return F.avg_pool1d(x, 2, ceil_mode=True)
        if self.pool == "max":
            return F.max_pool1d(x, 3, stride=2, padding=1)
        if self.pool == "adaptive avg":
            return F.adaptive_avg_pool1d(x, 4)
        if self.pool == "adaptive max":
            return F.adaptive_max_pool1d(x, 4)
        if self.pool == "lp":
            return torch.sqrt(F.avg_pool1d(x**2, 2) + 1e-3)
        return F.max_pool2d(x.unsqueeze(2), (1, 2)).squeeze(2)

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[-1]
        y = self.conv(self.down(x))
        if self.up == "repeat_interleave":
            y = y.repeat_interleave(-(-time // y.shape[-1]), dim=-1)
            return y[..., :time]
        if self.up == "module":
            return F.interpolate(self.upsample(y), size=time)
        return F.interpolate(y, size=time, mode=self.up)


class Cumulative(nn.Module):
    """Running sums and means over time."""

    def __init__(self, channels: int, width: int, *, kind: Literal["sum", "mean", "loop", "diff"]) -> None:
        super().__init__()
        self.kind = kind
        self.decay = nn.Parameter(torch.rand(channels))
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "sum":
            return x.cumsum(dim=-1) * 0.3
        if self.kind == "mean":
            return x.cumsum(-1) / torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
        if self.kind == "diff":
            return x - F.pad(x[..., :-1], (1, 0))
        state, outputs = torch.zeros_like(x[..., 0]), []
        for frame in x.unbind(dim=-1):
            state = self.decay * state + (1 - self.decay) * frame
            outputs.append(state)
        return torch.stack(outputs, dim=-1)


class WholeTensor(nn.Module):
    """The features divided by one number made from all of them."""

    def __init__(
        self, channels: int, width: int, *, number: Literal["peak", "sum", "mean", "norm", "std", "squeezed"]
    ) -> None:
        super().__init__()
        self.number = number
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.number == "squeezed":
            return x / (x.abs().mean(dim=(1, 2), keepdim=True).squeeze() + 0.1).reshape(-1, 1, 1)
        numbers = {
            "peak": lambda: x.abs().max(),
            "sum": lambda: x.pow(2).sum().sqrt(),
            "mean": lambda: x.abs().mean(),
            "norm": lambda: torch.linalg.norm(x),
            "std": lambda: x.std(),
        }
        return x / (numbers[self.number]() + 0.1)


BLOCKS = (SqueezeExcitation, ChannelPool, TransformAverage, AttentivePool, PoolAndInterpolate, Cumulative, WholeTensor)
