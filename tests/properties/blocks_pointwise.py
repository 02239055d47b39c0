"""Activations, gates, masks and scalings."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Snake(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(0.5 + torch.rand(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x) ** 2 / self.alpha


class WrittenSoftmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.exp(x - x.amax(dim=1, keepdim=True))
        return x / x.sum(dim=1, keepdim=True)


class Compress(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sign() * torch.log1p(x.abs())


class Activation(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kind: Literal["relu", "leaky_relu", "prelu", "prelu of each", "gelu", "silu", "elu", "tanh", "sigmoid"]
        | Literal["softplus", "hardtanh", "mish", "snake", "softmax", "softmax over time", "log_softmax"]
        | Literal["written softmax", "compress", "cos", "dropout"],
    ) -> None:
        super().__init__()
        kinds = {
            "relu": nn.ReLU,
            "leaky_relu": lambda: nn.LeakyReLU(0.2),
            "prelu": nn.PReLU,
            "prelu of each": lambda: nn.PReLU(channels),
            "gelu": nn.GELU,
            "silu": nn.SiLU,
            "elu": nn.ELU,
            "tanh": nn.Tanh,
            "sigmoid": lambda: torch.sigmoid,
            "softplus": nn.Softplus,
            "hardtanh": nn.Hardtanh,
            "mish": nn.Mish,
            "snake": lambda: Snake(channels),
            "softmax": lambda: nn.Softmax(dim=1),
            "softmax over time": lambda: nn.Softmax(dim=-1),
            "log_softmax": lambda: nn.LogSoftmax(dim=1),
            "written softmax": WrittenSoftmax,
            "compress": Compress,
            "cos": lambda: torch.cos,
            "dropout": lambda: nn.Dropout(0.3),
        }
        self.function = kinds[kind]()
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class InPlace(nn.Module):
    """Methods and operators that write into their operand."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        op: Literal["relu_", "leaky_relu_", "add_", "+=", "*=", "-=", "/=", "clamp_", "masked_fill_", "mul_ of slice"]
        | Literal["out=", "copy_", "sigmoid_ of view", "add_ alpha"],
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, 3, padding=1)
        self.shift = nn.Parameter(torch.randn(width, 1) * 0.3)
        self.op = op
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.op == "relu_":
            y.relu_()
        elif self.op == "leaky_relu_":
            F.leaky_relu_(y, 0.1)
        elif self.op == "add_":
            y.add_(self.shift)
        elif self.op == "add_ alpha":
            y.add_(self.shift, alpha=0.5)
        elif self.op == "+=":
            y += self.shift
        elif self.op == "*=":
            y *= self.shift
        elif self.op == "-=":
            y -= y.mean(dim=1, keepdim=True)
        elif self.op == "/=":
            y /= 1 + self.shift.abs()
        elif self.op == "clamp_":
            y.clamp_(min=0.1)
        elif self.op == "masked_fill_":
            times = torch.arange(y.shape[-1], device=y.device)
            y.masked_fill_(times % 3 == 0, 0.5)
        elif self.op == "mul_ of slice":
            y[:, :, 1:].mul_(2)
        elif self.op == "copy_":
            y = torch.empty_like(y).copy_(torch.tanh(y))
        elif self.op == "sigmoid_ of view":
            y.transpose(1, 2).sigmoid_()
        else:
            y = torch.add(y, self.shift, out=torch.empty_like(y)) if not torch.is_grad_enabled() else y + self.shift
        return y


class Gate(nn.Module):
    """Two halves of the channels, one opening or closing the other."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        split: Literal["glu", "chunk", "split", "slice", "strided", "narrow", "tensor_split", "view", "two layers"],
        gate: Literal["sigmoid", "sigmoid tanh", "silu", "product"],
    ) -> None:
        super().__init__()
        self.width = width
        self.both = nn.Conv1d(channels, 2 * width, 1)
        self.other = nn.Conv1d(channels, width, 1)
        self.halves = split
        self.gate = gate
        self.out_channels = width

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.halves == "two layers":
            return self.other(x), self.both(x)[:, : self.width]
        x = self.both(x)
        if self.halves == "chunk":
            return x.chunk(2, dim=1)
        if self.halves == "split":
            return torch.split(x, self.width, dim=1)
        if self.halves == "slice":
            return x[:, : self.width], x[:, self.width :]
        if self.halves == "strided":
            return x[:, ::2], x[:, 1::2]
        if self.halves == "narrow":
            return x.narrow(1, 0, self.width), x.narrow(1, self.width, self.width)
        if self.halves == "tensor_split":
            return x.tensor_split(2, dim=1)
        return x.view(x.shape[0], 2, self.width, x.shape[-1]).unbind(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.halves == "glu":
            return F.glu(self.both(x), dim=1)
        a, b = self.split(x)
        if self.gate == "sigmoid tanh":
            return torch.sigmoid(a) * torch.tanh(b)
        return a * {"sigmoid": torch.sigmoid, "silu": F.silu, "product": torch.clone}[self.gate](b)


class Film(nn.Module):
    """Scale and shift of the channels, computed from their means over time."""

    def __init__(self, channels: int, width: int, *, split: Literal["chunk", "view", "two layers"]) -> None:
        super().__init__()
        self.condition = nn.Linear(channels, width)
        self.both = nn.Linear(width, 2 * channels)
        self.scale = nn.Linear(width, channels)
        self.halves = split
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        condition = F.relu(self.condition(x.mean(dim=-1)))
        if self.halves == "chunk":
            scale, shift = self.both(condition).unsqueeze(-1).chunk(2, dim=1)
        elif self.halves == "view":
            scale, shift = self.both(condition).view(x.shape[0], 2, -1, 1).transpose(0, 1)
        else:
            scale, shift = self.scale(condition)[..., None], 0.1
        return x * (1 + scale) + shift


class Scale(nn.Module):
    """A learnt or fixed factor of each channel, and other maps of two operands."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        op: Literal["parameter", "buffer", "scalar", "number", "bias", "addcmul", "addcdiv", "lerp", "where", "maximum"]
        | Literal["exp", "made mask", "outer", "root", "rsub"],
    ) -> None:
        super().__init__()
        self.scale = nn.Parameter(1 + torch.randn(channels, 1) * 0.3)
        self.bias = nn.Parameter(torch.randn(1, channels, 1) * 0.3)
        self.scalar = nn.Parameter(torch.tensor(0.7))
        self.register_buffer("fixed", torch.linspace(0.5, 1.5, channels).unsqueeze(-1))
        self.register_buffer("mask", (torch.arange(channels) % 2 == 0).unsqueeze(-1))
        self.op = op
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.op == "parameter":
            return x * self.scale
        if self.op == "buffer":
            return self.fixed * x
        if self.op == "scalar":
            return x * self.scalar
        if self.op == "number":
            return 2 * x + 0.5
        if self.op == "bias":
            return x + self.bias
        if self.op == "addcmul":
            return torch.addcmul(self.bias, x, self.scale, value=0.5)
        if self.op == "addcdiv":
            return torch.addcdiv(self.bias, x, 1 + self.scale.abs())
        if self.op == "lerp":
            return torch.lerp(x, self.bias.expand_as(x), torch.sigmoid(self.scale))
        if self.op == "where":
            return torch.where(self.mask, x, self.bias)
        if self.op == "maximum":
            return torch.maximum(x, self.bias)
        if self.op == "exp":
            return torch.exp(self.scale) * x
        if self.op == "made mask":
            return x.masked_fill(~self.mask, 0.25)
        if self.op == "outer":
            return x + torch.outer(self.scale[:, 0], torch.ones(x.shape[-1], dtype=x.dtype, device=x.device))
        if self.op == "root":
            return torch.sqrt(x**2 + self.bias**2 + 0.1)
        return 1 - x


class Masks(nn.Module):
    """Masks of several sources on the features, as separators make them."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        sizes: Literal["attribute", "shape", "minus one"],
        mask: Literal["sigmoid", "softmax", "relu"],
        merge: Literal["sum", "flatten", "batch", "stack"],
    ) -> None:
        super().__init__()
        self.sources = 2
        self.channels = channels
        self.sizes = sizes
        self.make = nn.Conv1d(channels, self.sources * channels, 1)
        self.mix = nn.Conv1d(channels, width, 1)
        self.mask = mask
        self.merge = merge
        self.out_channels = {"sum": channels, "flatten": 2 * channels, "batch": 2 * width, "stack": channels}[merge]

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, time = x.shape
        channels = {"attribute": self.channels, "shape": channels, "minus one": -1}[self.sizes]
        masks = self.make(x).view(batch, self.sources, channels, time)
        masks = {"sigmoid": torch.sigmoid, "relu": F.relu, "softmax": lambda m: m.softmax(dim=1)}[self.mask](masks)
        y = masks * x.unsqueeze(1)
        if self.merge == "sum":
            return y.sum(dim=1)
        if self.merge == "flatten":
            return y.reshape(batch, -1, time)
        if self.merge == "stack":
            return torch.stack([y[:, source] for source in range(self.sources)], dim=-1).mean(dim=-1)
        y = self.mix(y.reshape(batch * self.sources, -1, time))
        return y.reshape(batch, -1, time)


BLOCKS = (Activation, InPlace, Gate, Film, Scale, Masks)
