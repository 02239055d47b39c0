"""Blocks around convolutions and linear maps; each maps ``(batch, channels, time)`` to ``(batch, width, time)``."""

import math
import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm


class Conv(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kernel: Literal[3, 1, 5],
        dilation: Literal[1, 2],
        padding: Literal["number", "same", "causal"],
        bias: Literal[True, False],
    ) -> None:
        super().__init__()
        reach = dilation * (kernel - 1)
        pad = {"number": reach // 2, "same": "same", "causal": reach}[padding]
        self.causal = padding == "causal"
        self.conv = nn.Conv1d(channels, width, kernel, dilation=dilation, padding=pad, bias=bias)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y[..., : x.shape[-1]] if self.causal else y


class GroupedConv(nn.Module):
    def __init__(
        self, channels: int, width: int, *, groups: Literal[2, 3, 4], dims: Literal[1, 2, 3], bias: Literal[True, False]
    ) -> None:
        super().__init__()
        self.groups = math.gcd(groups, math.gcd(channels, width))
        self.dims = dims
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        kernel = (1,) * (dims - 1) + (3,)
        padding = (0,) * (dims - 1) + (1,)
        self.conv = kind(channels, width, kernel, padding=padding, groups=self.groups, bias=bias)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.dims - 1):
            x = x.unsqueeze(2)
        y = self.conv(x)
        return y.flatten(2)


class DepthwiseSeparableConv(nn.Module):
    def __init__(self, channels: int, width: int, *, multiplier: Literal[1, 2], dilation: Literal[1, 2]) -> None:
        super().__init__()
        inner = channels * multiplier
        self.depthwise = nn.Conv1d(channels, inner, 3, padding=dilation, dilation=dilation, groups=channels)
        self.pointwise = nn.Conv1d(inner, width, 1)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(F.relu(self.depthwise(x)))


class Resample(nn.Module):
    """A strided convolution and a transposed one that undoes the stride."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        groups: Literal["one", "two", "depthwise"],
        dims: Literal[1, 2, 3],
        bias: Literal[True, False],
    ) -> None:
        super().__init__()
        count = {"one": 1, "two": math.gcd(2, width), "depthwise": width}[groups]
        self.dims = dims
        down = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        up = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
        ones = (1,) * (dims - 1)
        self.down = down(channels, width, (*ones, 4), stride=(*ones, 2), padding=(*(0 for _ in ones), 2), bias=bias)
        self.up = up(width, width, (*ones, 4), stride=(*ones, 2), groups=count, bias=bias)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        time = x.shape[-1]
        for _ in range(self.dims - 1):
            x = x.unsqueeze(2)
        y = self.up(F.leaky_relu(self.down(x), 0.1))
        for _ in range(self.dims - 1):
            y = y.squeeze(2)
        return y[..., 1 : time + 1]


class ChannelsAsSpace(nn.Module):
    """A convolution that runs over the channel axis as if it were space: the channels must stay."""

    def __init__(self, channels: int, width: int, *, reduce: Literal["sum", "flatten"]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.reduce = reduce
        self.out_channels = channels if reduce == "sum" else channels * width

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.unsqueeze(1))
        return y.sum(dim=1) if self.reduce == "sum" else y.flatten(1, 2)


class FeedForward(nn.Module):
    def __init__(self, channels: int, width: int, *, bias: Literal[True, False], shape: Literal["3-d", "2-d"]) -> None:
        super().__init__()
        self.first = nn.Linear(channels, 2 * width, bias=bias)
        self.second = nn.Linear(2 * width, width, bias=bias)
        self.flat = shape == "2-d"
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, time = x.shape
        x = x.transpose(1, 2)
        if self.flat:
            x = x.reshape(batch * time, channels)
        x = self.second(F.gelu(self.first(x)))
        if self.flat:
            x = x.view(batch, time, -1)
        return x.transpose(1, 2)


class NormedWeight(nn.Module):
    """Weight norm and spectral norm, in the old manner (hooks) and the new one (parametrizations)."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        norm: Literal["weight", "spectral"],
        manner: Literal["parametrized", "old"],
        layer: Literal["conv", "linear", "transposed"],
    ) -> None:
        super().__init__()
        self.is_linear = layer == "linear"
        kinds = {
            "conv": lambda: nn.Conv1d(channels, width, 3, padding=1),
            "linear": lambda: nn.Linear(channels, width),
            "transposed": lambda: nn.ConvTranspose1d(channels, width, 3, padding=1),
        }
        wrap = {
            ("weight", "parametrized"): parametrizations.weight_norm,
            ("weight", "old"): weight_norm,
            ("spectral", "parametrized"): parametrizations.spectral_norm,
            ("spectral", "old"): spectral_norm,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the old manner is deprecated, and all over the zoo
            self.layer = wrap[norm, manner](kinds[layer]())
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        if self.is_linear:
            return self.layer(x.transpose(1, 2)).transpose(1, 2)
        return self.layer(x)


class MadeWeight(nn.Module):
    """A convolution whose weight is computed from a parameter in every forward pass."""

    def __init__(
        self, channels: int, width: int, *, weight: Literal["scaled", "standardised", "causal", "unit", "low_rank"]
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, channels, 3) * 0.3)
        self.gain = nn.Parameter(1 + torch.randn(width, 1, 1) * 0.2)
        self.rank = nn.Parameter(torch.randn(width, 2) * 0.3)
        self.columns = nn.Parameter(torch.randn(2, channels) * 0.3)
        self.bias = nn.Parameter(torch.randn(width) * 0.2)
        self.scale = 1 / math.sqrt(3 * channels)
        self.register_buffer("taps", torch.tensor([1.0, 1.0, 0.0]))
        self.made = weight
        self.out_channels = width

    def make_weight(self) -> Tensor:
        weight = self.weight
        if self.made == "scaled":
            return weight * self.scale
        if self.made == "standardised":
            centred = weight - weight.mean(dim=(1, 2), keepdim=True)
            return self.gain * centred / (centred.var(dim=(1, 2), keepdim=True, unbiased=False) + 1e-3).sqrt()
        if self.made == "causal":
            return weight * self.taps
        if self.made == "unit":
            return self.gain * F.normalize(weight, dim=1, eps=1e-3)
        return weight + (self.rank @ self.columns).unsqueeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.make_weight(), self.bias, padding=1)


class TiedWeights(nn.Module):
    """One weight serves an encoder and, transposed, its decoder."""

    def __init__(self, channels: int, width: int, *, tie: Literal["modules", "functional", "twice"]) -> None:
        super().__init__()
        self.tie = tie
        self.encode = nn.Conv1d(channels, width, 3, padding=1, bias=False)
        self.decode = nn.ConvTranspose1d(width, channels, 3, padding=1)
        self.again = nn.Conv1d(channels, width, 3, padding=1)
        self.decode.weight = self.encode.weight
        if tie == "twice":
            self.again.weight = self.encode.weight
        self.out_channels = width if tie == "twice" else channels

    def forward(self, x: Tensor) -> Tensor:
        if self.tie == "functional":
            hidden = torch.relu(F.linear(x.transpose(1, 2), self.encode.weight[..., 0]))
            return F.linear(hidden, self.encode.weight[..., 0].t()).transpose(1, 2)
        y = self.decode(torch.relu(self.encode(x)))
        return self.again(y) if self.tie == "twice" else y


class RawMatrix(nn.Module):
    """A matrix applied to the channels by hand."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        op: Literal["matmul", "at", "bmm", "baddbmm", "addmm", "einsum", "tensordot", "mul_sum"],
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, channels) / channels**0.5)
        self.bias = nn.Parameter(torch.randn(width) * 0.2)
        self.op = op
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        batch, _, time = x.shape
        if self.op == "matmul":
            return torch.matmul(self.weight, x) + self.bias.unsqueeze(-1)
        if self.op == "at":
            return (x.transpose(1, 2) @ self.weight.T + self.bias).mT
        if self.op == "bmm":
            return torch.bmm(self.weight.unsqueeze(0).expand(batch, -1, -1), x)
        if self.op == "baddbmm":
            return torch.baddbmm(self.bias[:, None], self.weight.repeat(batch, 1, 1), x)
        if self.op == "addmm":
            flat = x.permute(1, 0, 2).flatten(1)
            return torch.addmm(self.bias[:, None], self.weight, flat).unflatten(1, (batch, time)).transpose(0, 1)
        if self.op == "einsum":
            return torch.einsum("oc,bct->bot", self.weight, x) + self.bias.view(1, -1, 1)
        if self.op == "tensordot":
            return torch.tensordot(self.weight, x, dims=([1], [1])).transpose(0, 1)
        return (self.weight[None, :, :, None] * x[:, None]).sum(dim=2)


class Unbatched(nn.Module):
    """Each element of the batch goes through its layers alone."""

    def __init__(self, channels: int, width: int, *, layer: Literal["conv", "transposed", "linear"]) -> None:
        super().__init__()
        self.is_linear = layer == "linear"
        kinds = {
            "conv": lambda: nn.Conv1d(channels, width, 3, padding=1),
            "transposed": lambda: nn.ConvTranspose1d(channels, width, 3, padding=1),
            "linear": lambda: nn.Linear(channels, width),
        }
        self.layer = kinds[layer]()
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        if self.is_linear:
            return torch.stack([self.layer(row.t()).t() for row in x])
        return torch.stack([self.layer(row) for row in x])


class DynamicConv(nn.Module):
    """Filters that the network computes from its input, one per channel and element of the batch."""

    def __init__(self, channels: int, width: int, *, sizes: Literal["shape", "attribute"]) -> None:
        super().__init__()
        self.taps = 3
        self.channels = channels
        self.sizes = sizes
        self.make = nn.Linear(channels, channels * self.taps)
        self.mix = nn.Conv1d(channels, width, 1)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, time = x.shape
        if self.sizes == "attribute":
            channels = self.channels
        filters = torch.tanh(self.make(x.mean(-1))).view(batch * channels, 1, self.taps)
        y = F.conv1d(x.reshape(1, batch * channels, time), filters, padding=1, groups=batch * channels)
        return self.mix(y.view(batch, channels, time))


BLOCKS = (
    Conv,
    GroupedConv,
    DepthwiseSeparableConv,
    Resample,
    ChannelsAsSpace,
    FeedForward,
    NormedWeight,
    MadeWeight,
    TiedWeights,
    RawMatrix,
    Unbatched,
    DynamicConv,
)
