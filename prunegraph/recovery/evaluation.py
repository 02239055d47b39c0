"""How well a separator separates: SI-SDR improvement over fixed mixtures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from prunegraph.data.corpus import Corpus
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings, kinds_of_pairs
from prunegraph.errors import InputError
from prunegraph.recovery.losses import si_sdr_improvement


@dataclass(frozen=True, slots=True, kw_only=True)
class Improvement:
    """SI-SDR improvement over some mixtures.

    Attributes:
        mean: mean in dB.
        half_width: half of the 95 % confidence interval of the mean in dB (normal approximation over mixtures).
        count: number of mixtures.
    """

    mean: float
    half_width: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.half_width:.2f} dB"


@torch.no_grad()
def evaluate(network: nn.Module, mixtures: Sequence[Mixture]) -> Improvement:
    """Mean SI-SDR improvement with its 95 % confidence interval, in evaluation mode.

    Args:
        network: takes ``(1, 1, time)`` to ``(1, speakers, time)``; its training flags are left as they were.
        mixtures: at least two.

    Raises:
        InputError: fewer than two mixtures.
    """
    if len(mixtures) < 2:
        raise InputError(f"An interval needs at least 2 mixtures, got {len(mixtures)}.")
    device = next(network.parameters()).device
    flags = {module: module.training for module in network.modules()}
    network.eval()
    try:
        scores = torch.cat([_score(network, mixture, device) for mixture in mixtures]).double()
    finally:
        for module, training in flags.items():
            module.training = training
    half_width = 1.96 * float(scores.std()) / math.sqrt(len(mixtures))
    return Improvement(mean=float(scores.mean()), half_width=half_width, count=len(mixtures))


def evaluate_by_family(
    network: nn.Module, corpus: Corpus, *, count: int, seed: int, settings: MixtureSettings | None = None
) -> dict[str, Improvement]:
    """Evaluates on ``count`` fixed mixtures of each kind of pair that the corpus offers.

    Returns:
        ``cross-family`` and ``same-family``, each if the corpus has such pairs. People of one family share language
        and recording channel and are harder to separate.
    """
    settings = settings or MixtureSettings()
    return {
        pairs: evaluate(network, MixtureSampler(corpus, replace(settings, pairs=pairs)).fixed(seed, count))
        for pairs in kinds_of_pairs(corpus)
    }


def _score(network: nn.Module, mixture: Mixture, device: torch.device) -> torch.Tensor:
    signal = mixture.mixture.to(device)[None, None]
    return si_sdr_improvement(network(signal), mixture.sources.to(device)[None], signal).cpu()
