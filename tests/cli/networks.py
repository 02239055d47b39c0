"""Factories as users write them, good and bad."""

import sys
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.verification.test_proving import HIDDEN, Hidden


class Separator(nn.Module):
    """Encoder, masker and decoder over ``(batch, 1, time)``; it talks while it runs."""

    def __init__(self, sources: int = 2, width: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, width, 8, 4)
        self.masker = nn.Sequential(nn.Conv1d(width, 24, 1), nn.PReLU(), nn.Conv1d(24, width, 1), nn.Sigmoid())
        self.decoder = nn.ConvTranspose1d(width, sources, 8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("separating")  # noqa: T201 - as users' networks do
        encoded = self.encoder(x)
        decoded: torch.Tensor = self.decoder(encoded * self.masker(encoded))
        return decoded


class HardCoded(nn.Module):
    """Writes a size down as a number, and calls an operator that has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv1d(1, 16, 4), nn.Conv1d(16, 8, 1), nn.Conv1d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        halves = F.relu(self.first(x)).view(x.shape[0], 2, 8, -1).flatten(1, 2)
        out: torch.Tensor = self.last(torch.special.bessel_j0(self.second(halves)))
        return out


class TwoInputs(nn.Module):
    """Takes a mixture and a speaker's embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.speaker, self.out = nn.Conv1d(1, 8, 4), nn.Linear(5, 8), nn.Conv1d(8, 1, 1)

    def forward(self, x: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.encoder(x) * self.speaker(speaker).unsqueeze(-1))
        return out


def separator(sources: int = 2, width: int = 16) -> nn.Module:
    """A network alone."""
    return Separator(sources, width)


def hidden() -> nn.Module:
    """One of its widths goes through text."""
    return Hidden(HIDDEN["text"])


def with_example() -> tuple[nn.Module, Any]:
    """A network and its inputs."""
    return HardCoded(), {"x": torch.randn(1, 1, 40)}


def all_locked() -> tuple[nn.Module, Any]:
    """Nothing but an output."""
    return nn.Conv1d(1, 4, 3), torch.randn(1, 1, 20)


def failing() -> nn.Module:
    """Raises over two lines."""
    raise ValueError("no such\nwidth")


def leaving() -> nn.Module:
    """Ends the process, as scripts do."""
    sys.exit("usage: train.py")


def interrupted() -> nn.Module:
    """As if the user pressed control-C."""
    raise KeyboardInterrupt


def text() -> str:
    """Returns no network."""
    return "network"


def warning() -> nn.Module:
    """Warns, like many networks."""
    warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
    return Separator()


NETWORK = Separator()
NUMBER = 3
