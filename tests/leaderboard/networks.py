"""Separators as users write them, small enough to be pruned and trained in a moment."""

import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Separator(nn.Module):
    """Encoder, masker and decoder over ``(batch, 1, time)``, or ``(batch, time)``."""

    def __init__(self, width: int = 12, flat: bool = False) -> None:
        super().__init__()
        self.flat = flat
        self.encoder = nn.Conv1d(1, width, 32, 16)
        self.masker = nn.Sequential(nn.Conv1d(width, 16, 1), nn.PReLU(), nn.Conv1d(16, width, 1), nn.Sigmoid())
        self.decoder = nn.ConvTranspose1d(width, 2, 32, 16)
        self.gain = nn.Parameter(torch.full((2, 1), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(1) if self.flat else x
        padded = nn.functional.pad(x, (0, -x.shape[-1] % 16 + 16))
        encoded = self.encoder(padded)
        estimates: torch.Tensor = self.decoder(encoded * self.masker(encoded)) * self.gain
        return estimates[..., : x.shape[-1]]


def separator() -> tuple[nn.Module, Any]:
    return Separator(), torch.randn(1, 1, 800)


def flat() -> tuple[nn.Module, Any]:
    return Separator(flat=True), torch.randn(1, 800)


def stereo() -> tuple[nn.Module, Any]:
    return nn.Conv1d(2, 2, 1), torch.randn(1, 2, 800)


def mortal() -> tuple[nn.Module, Any]:
    """Kills its process when it is opened for the second cell, if told to by a file that is there."""
    told = Path(os.environ["MORTAL"])
    if told.exists():
        told.write_text(told.read_text() + ".")
        if len(told.read_text()) == 3:  # once for the admission, once for each cell
            os.kill(os.getpid(), signal.SIGKILL)
    return separator()
