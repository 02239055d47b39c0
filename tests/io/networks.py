"""Small networks, each with something that a plain state dict loses or a plain file format refuses."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

TIME = (2, 1, 64)
FRAMES = (2, 9, 12)


class Codec(nn.Module):
    """Encoder, a block in the middle and a decoder over ``(batch, 1, time)``."""

    def __init__(self, middle: nn.Module, width: int = 12) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, width, 4, 2)
        self.middle = middle
        self.decoder = nn.ConvTranspose1d(width, 2, 4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self.decoder(self.middle(F.relu(self.encoder(x))))
        return decoded


class Tied(nn.Module):
    """Two layers with one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(12, 10)
        self.first, self.second = nn.Linear(10, 10), nn.Linear(10, 10)
        self.second.weight = self.first.weight
        self.out = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.second(F.relu(self.first(self.into(x)))))
        return out


class HiddenBuffer(nn.Module):
    """A random buffer that no state dict has, though it shrinks with the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(12), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale.view(1, -1, 1)


class PlainAttribute(nn.Module):
    """A random tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.ramp = torch.rand(31)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.ramp


class PlainTables(nn.Module):
    """Random tables in ordinary attributes that shrink with the channels; one is a part of the other's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.rand(12, 31)
        self.gains = {"first": [self.table[:, :1]]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.table) * self.gains["first"][0]


class ExtraState(nn.Module):
    """State that only ``get_extra_state`` tells."""

    def __init__(self) -> None:
        super().__init__()
        self.gain: Any = torch.rand(()), {"power": 2, "names": ["a", None]}

    def get_extra_state(self) -> Any:
        return self.gain

    def set_extra_state(self, state: Any) -> None:
        self.gain = state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(self.gain[0]) ** self.gain[1]["power"]


class ComplexGain(nn.Module):
    """Complex parameters, of an element type that safetensors lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(12, 1, dtype=torch.complex128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.gain).abs().to(x.dtype)


class Recurrent(nn.Module):
    """A bidirectional LSTM between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(12, 10, 2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.rnn(x)[0])
        return out


class Attention(nn.Module):
    """A transformer layer: its attention module is replaced by surgery."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(12, 2, dim_feedforward=16, batch_first=True)
        self.into, self.out = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.layer(self.into(x)))
        return out


class Picture(nn.Module):
    """Two-dimensional convolutions, whose weights may lie channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x)
        return out


def _old_weight_norm() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return nn.utils.weight_norm(nn.Conv1d(12, 12, 1))


def _weight_norm() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv1d(12, 12, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A network and what may be done to it before it is saved."""

    factory: Callable[[], nn.Module]
    shape: tuple[int, ...] = TIME
    finish: Callable[[nn.Module], nn.Module] = nn.Module.eval
    dtype: torch.dtype = torch.float32

    def inputs(self) -> torch.Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(7)).to(self.dtype)


EXAMPLES = {
    "plain": Example(factory=lambda: Codec(nn.PReLU(12))),
    "batch-norm": Example(factory=lambda: Codec(nn.BatchNorm1d(12))),
    "in-training-mode": Example(factory=lambda: Codec(nn.BatchNorm1d(12)), finish=nn.Module.train),
    "non-persistent-buffer": Example(factory=lambda: Codec(HiddenBuffer())),
    "plain-attribute": Example(factory=lambda: Codec(PlainAttribute())),
    "plain-tables": Example(factory=lambda: Codec(PlainTables())),
    "extra-state": Example(factory=lambda: Codec(ExtraState())),
    "complex128": Example(factory=lambda: Codec(ComplexGain())),
    "weight-norm-hook": Example(factory=lambda: Codec(_old_weight_norm())),
    "weight-norm-parametrization": Example(factory=lambda: Codec(_weight_norm())),
    "half": Example(factory=lambda: Codec(nn.PReLU(12)), finish=lambda net: net.eval().half(), dtype=torch.float16),
    "bfloat16": Example(factory=Tied, shape=FRAMES, finish=lambda net: net.eval().bfloat16(), dtype=torch.bfloat16),
    "float64": Example(factory=Recurrent, shape=FRAMES, finish=lambda net: net.eval().double(), dtype=torch.float64),
    "tied": Example(factory=Tied, shape=FRAMES),
    "lstm": Example(factory=Recurrent, shape=FRAMES),
    "attention": Example(factory=Attention, shape=FRAMES),
    "channels-last": Example(
        factory=Picture,
        shape=(1, 1, 16, 16),
        finish=lambda net: net.eval().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    ),
}
