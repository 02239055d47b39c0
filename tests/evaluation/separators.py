"""Networks and mixtures whose scores are known."""

import torch
from torch import Tensor, nn

from prunegraph.data.mixtures import Mixture
from tests.data.speakers import utterance

RATE = 8000


class Oracle(nn.Module):
    """Knows the sources and returns them in the other order, with a given share of the mixture."""

    def __init__(self, mixtures: tuple[Mixture, ...], leak: float = 0.0, dims: int = 3) -> None:
        super().__init__()
        self.mixtures, self.leak, self.dims = mixtures, leak, dims
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, signal: Tensor) -> Tensor:
        assert signal.dim() == self.dims
        known = next(m for m in self.mixtures if torch.equal(m.mixture.to(signal.dtype), signal.flatten().cpu()))
        sources = known.sources.to(signal).flip(0)
        return self.scale * (sources + self.leak * signal.flatten())[None]


class Answer(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer, self.weight = answer, nn.Parameter(torch.ones(()))

    def forward(self, signal: Tensor) -> object:
        return self.answer(self.weight * signal)


def mixtures(count: int = 3, seconds: float = 1.5, noise: float = 0.01) -> tuple[Mixture, ...]:
    """Two synthetic voices each, of different level and with some noise."""
    made = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        voices = [torch.from_numpy(utterance(90 + 70 * i, seconds, RATE, seed=10 * number + i)) for i in range(2)]
        sources = torch.stack(voices) * torch.tensor([[1.0], [0.5 + 0.2 * number]])
        sources = sources + noise * torch.randn(sources.shape, generator=generator)
        made.append(Mixture(mixture=sources.sum(0), sources=sources, name=f"mixture{number}" if number else ""))
    return tuple(made)


def small_separator(channel: bool = True) -> nn.Module:
    """A prunable network that keeps the length; without ``channel`` it takes ``(batch, time)``."""
    layers = [nn.Conv1d(1, 8, 9, padding=4), nn.PReLU(), nn.Conv1d(8, 2, 9, padding=4)]
    return nn.Sequential(*layers) if channel else nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Flatten(0, 1), *layers)
