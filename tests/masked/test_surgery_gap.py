"""Surgery gap zero: a masked separator is worth to the listener what the pruned one is, whatever normalises it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunegraph
from prunegraph.data.mixtures import MixtureSettings, mix
from prunegraph.recovery.losses import si_sdr
from tests.data.speakers import utterance

RATE, WIDTH = 8000, 24


class CumulativeNorm(nn.Module):
    """cLN: mean and variance over all channels and all frames so far."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[1] * torch.arange(1, x.shape[2] + 1, dtype=x.dtype, device=x.device)
        mean = x.sum(dim=1).cumsum(dim=1) / count
        power = x.square().sum(dim=1).cumsum(dim=1) / count
        variance = (power - mean.square()).clamp_min(0)
        return (x - mean[:, None]) / (variance[:, None] + 1e-5).sqrt() * self.gain + self.bias


class OverTime(nn.Module):
    """A layer over ``(batch, time, channels)`` that returns a pair."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        y = self.layer(x, x, x)[0] if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)[0]
        return y.transpose(1, 2)


PARTS: dict[str, Callable[[], nn.Module]] = {
    "gLN": lambda: nn.GroupNorm(1, WIDTH),
    "cLN": lambda: CumulativeNorm(WIDTH),
    "GroupNorm": lambda: nn.GroupNorm(4, WIDTH),
    "BatchNorm": lambda: nn.BatchNorm1d(WIDTH),
    "RNN": lambda: OverTime(nn.LSTM(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)),
    "attention": lambda: OverTime(nn.MultiheadAttention(WIDTH, 4, batch_first=True)),
}


class Separator(nn.Module):
    """Encoder, one part under test between 1x1 convolutions, masks, decoder."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 32, 16, 8)
        self.masker = nn.Sequential(
            nn.Conv1d(32, WIDTH, 1), nn.PReLU(), part, nn.Conv1d(WIDTH, WIDTH, 3, padding=1), nn.Conv1d(WIDTH, 64, 1)
        )
        self.decoder = nn.ConvTranspose1d(32, 1, 16, 8)

    def forward(self, mixture: Tensor) -> Tensor:
        features = self.encoder(mixture).relu()
        masks = self.masker(features).sigmoid().chunk(2, dim=1)
        return torch.cat([self.decoder(features * mask) for mask in masks], dim=1)


def mixtures() -> tuple[Tensor, Tensor]:
    """Two mixtures ``(2, 1, time)`` and their sources ``(2, 2, time)``."""
    rng = np.random.default_rng(0)
    voices = [[utterance(pitch, 1.0, RATE, seed) for pitch in (90, 230)] for seed in (1, 2)]
    settings = MixtureSettings(min_seconds=0.5, max_seconds=0.5)
    sources = torch.stack([mix(pair, RATE, settings, rng) for pair in voices])
    return sources.sum(dim=1, keepdim=True), sources


@pytest.mark.parametrize("part", PARTS)
def test_masked_and_pruned_separators_score_alike(part: str) -> None:
    torch.manual_seed(0)
    model = Separator(PARTS[part]()).eval()
    mixture, sources = mixtures()
    graph = prunegraph.build_graph(model, mixture)
    generator = np.random.default_rng(0)
    kept = {g.name: sorted(generator.permutation(g.width)[: g.width // 2].tolist()) for g in graph.groups}
    masks = {g.name: torch.zeros(g.width).index_fill(0, torch.tensor(kept[g.name]), 1) for g in graph.groups}
    with torch.no_grad():
        masked = si_sdr(prunegraph.MaskedProgram(graph)(masks, mixture), sources)
        pruned = si_sdr(prunegraph.apply(model, graph.plan(kept))(mixture), sources)
        dense = si_sdr(model(mixture), sources)
    assert (masked - pruned).abs().max() < 1e-3
    assert (dense - pruned).abs().max() > 1e-2
