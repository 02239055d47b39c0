import statistics

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunegraph.data.corpus import Clip, Corpus, Voice
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings
from prunegraph.errors import InputError
from prunegraph.recovery.evaluation import evaluate, evaluate_by_family
from prunegraph.recovery.losses import si_sdr_improvement
from tests.data.speakers import utterance

SETTINGS = MixtureSettings(min_seconds=0.5, max_seconds=1.0)


class Splitter(nn.Module):
    """Two estimates: the mixture and its first difference, weighted by a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.dropout = nn.Dropout(0.9)

    def forward(self, mixture: Tensor) -> Tensor:
        difference = mixture - self.weight * mixture.roll(1, -1)
        return torch.cat([mixture, self.dropout(difference)], dim=1)


def _corpus(families: str = "xxy") -> Corpus:
    clips = [
        Clip(
            voice=Voice(name=f"p{i}", person=f"p{i}", family=family),
            name=f"clip{j}",
            samples=(utterance(90 * 1.5**i, 1.2, 1000, seed=j) * 2**14).astype(np.int16),
        )
        for i, family in enumerate(families)
        for j in range(3)
    ]
    return Corpus(sample_rate=1000, clips=tuple(clips))


def _mixtures(count: int = 8) -> tuple[Mixture, ...]:
    return MixtureSampler(_corpus(), SETTINGS).fixed(seed=0, count=count)


def test_mean_and_interval_are_those_of_the_single_mixtures() -> None:
    network, mixtures = Splitter().eval(), _mixtures()
    with torch.no_grad():
        single = [
            si_sdr_improvement(network(m.mixture[None, None]), m.sources[None], m.mixture[None, None]).item()
            for m in mixtures
        ]
    result = evaluate(network, mixtures)
    assert result.mean == pytest.approx(statistics.fmean(single), abs=1e-5)
    assert result.half_width == pytest.approx(1.96 * statistics.stdev(single) / len(single) ** 0.5, abs=1e-5)
    assert str(result).endswith("dB")


def test_dropout_is_off_during_evaluation_and_the_flags_stay() -> None:
    network = Splitter()
    network.dropout.eval()
    first, second = evaluate(network, _mixtures()), evaluate(network.train(), _mixtures())
    assert first == second
    assert network.training
    assert network.dropout.training


def test_an_interval_needs_two_mixtures() -> None:
    with pytest.raises(InputError, match="at least 2"):
        evaluate(Splitter(), _mixtures(1))


@pytest.mark.parametrize(
    ("families", "kinds"),
    [("xxy", ["cross-family", "same-family"]), ("xyz", ["cross-family"]), ("xx", ["same-family"])],
)
def test_the_kinds_of_pairs_are_told_apart(families: str, kinds: list[str]) -> None:
    result = evaluate_by_family(Splitter(), _corpus(families), count=4, seed=0, settings=SETTINGS)
    assert sorted(result) == kinds
    assert {improvement.count for improvement in result.values()} == {4}
