from itertools import islice

import numpy as np
import pytest
import torch

from prunegraph.data.corpus import Clip, Corpus, Voice
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings, Pairs, kinds_of_pairs
from prunegraph.errors import DataError, InputError
from tests.data.speakers import utterance

VOICES = (
    Voice(name="a", person="anna", family="cs"),
    Voice(name="b", person="ben", family="cs"),
    Voice(name="c", person="carla", family="nl"),
    Voice(name="c2", person="carla", family="es"),
)


def _corpus(*seconds: float) -> Corpus:
    clips = [
        Clip(voice=voice, name=f"clip{j}", samples=(utterance(80 + 40 * i, length, 1000, j) * 2**14).astype(np.int16))
        for i, voice in enumerate(VOICES)
        for j, length in enumerate(seconds)
    ]
    return Corpus(sample_rate=1000, clips=tuple(clips))


def _drawn(settings: MixtureSettings | None = None, count: int = 60, seed: int = 0) -> tuple[Mixture, ...]:
    return MixtureSampler(_corpus(2.5, 3.0, 5.0, 1.0), settings or MixtureSettings()).fixed(seed, count)


def test_a_mixture_is_the_sum_of_two_different_people() -> None:
    drawn = _drawn()
    for mixture in drawn:
        torch.testing.assert_close(mixture.mixture, mixture.sources[0] + mixture.sources[1])
    assert {mixture.people for mixture in drawn} == {("anna", "ben"), ("anna", "carla"), ("ben", "carla")}


def test_lengths_and_levels_stay_in_their_ranges_and_use_them() -> None:
    drawn = _drawn()
    lengths = [mixture.mixture.numel() for mixture in drawn]
    energy = torch.stack([mixture.sources.square().mean(-1) for mixture in drawn])
    levels = 10 * torch.log10(energy[:, 0] / energy[:, 1])
    assert min(lengths) >= 2000
    assert 3000 < max(lengths) <= 4000
    assert levels.abs().max() <= 5.001
    assert levels.max() > 3
    assert levels.min() < -3


@pytest.mark.parametrize(
    ("pairs", "people"),
    [("same-family", {("anna", "ben")}), ("cross-family", {("anna", "carla"), ("ben", "carla")})],
)
def test_pairs_can_be_kept_to_one_kind(pairs: Pairs, people: set[tuple[str, str]]) -> None:
    assert {mixture.people for mixture in _drawn(MixtureSettings(pairs=pairs))} == people


def test_the_kinds_of_pairs_a_corpus_offers() -> None:
    corpus = _corpus(2.0)
    assert kinds_of_pairs(corpus) == ("cross-family", "same-family")
    assert kinds_of_pairs(corpus.where(lambda clip: clip.voice.person != "ben")) == ("cross-family",)


def test_the_mode_decides_whether_the_shorter_or_the_longer_clip_ends_a_mixture() -> None:
    corpus = _corpus(2.0).where(lambda clip: clip.voice.person == "anna")
    longer = _corpus(3.0).where(lambda clip: clip.voice.person == "ben")
    both = Corpus(sample_rate=1000, clips=corpus.clips + longer.clips)
    shortest, longest = (
        MixtureSampler(both, MixtureSettings(min_seconds=1, max_seconds=60, mode=mode)).fixed(0, 5)
        for mode in ("min", "max")
    )
    assert max(mixture.mixture.numel() for mixture in shortest) == 2000
    assert max(mixture.mixture.numel() for mixture in longest) == 3000
    whole = next(mixture for mixture in longest if mixture.mixture.numel() == 3000)
    assert whole.sources[0, :2000].any()
    assert not whole.sources[0, 2000:].any()
    assert whole.sources[1, 2000:].any()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="'min' or 'max', not 'mean'"):
        MixtureSettings(mode="mean")


def test_the_seed_decides_everything() -> None:
    first, again, other = _drawn(seed=1), _drawn(seed=1), _drawn(seed=2)
    assert all(torch.equal(a.sources, b.sources) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a.mixture, b.mixture) for a, b in zip(first, other, strict=True))


def test_a_stream_of_batches_can_be_resumed() -> None:
    sampler = MixtureSampler(_corpus(2.5, 3.0), MixtureSettings())
    whole = list(islice(sampler.batches(7, size=3), 5))
    rest = list(islice(sampler.batches(7, size=3, start=3), 2))
    assert all(torch.equal(a, b) for x, y in zip(whole[3:], rest, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(whole[0][0][..., :2000], whole[1][0][..., :2000])


def test_batches_have_one_length() -> None:
    mixture, sources = next(MixtureSampler(_corpus(2.5, 3.0), MixtureSettings()).batches(0, size=4))
    assert mixture.shape == (4, 1, sources.shape[-1])
    assert sources.shape[:2] == (4, 2)
    torch.testing.assert_close(mixture, sources.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("seconds", "pairs", "none"), [(1.0, "all", "No pair"), (1.9, "same-family", "No same-family pair")]
)
def test_too_short_clips_are_refused_with_the_mend(seconds: float, pairs: Pairs, none: str) -> None:
    with pytest.raises(DataError, match=f"{none}.*shorter mixtures"):
        MixtureSampler(_corpus(seconds), MixtureSettings(pairs=pairs))


@pytest.mark.parametrize(("shortest", "longest"), [(0, 1), (-1, 1), (3, 2)])
def test_impossible_durations_are_refused(shortest: float, longest: float) -> None:
    with pytest.raises(InputError, match="min_seconds"):
        MixtureSettings(min_seconds=shortest, max_seconds=longest)
