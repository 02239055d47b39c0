"""Two-speaker mixtures, made on the fly from a seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunegraph.data.audio import Waveform
from prunegraph.data.corpus import Clip, Corpus
from prunegraph.errors import DataError, InputError

Pairs: TypeAlias = Literal["all", "same-family", "cross-family"]
Mode: TypeAlias = Literal["min", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureSettings:
    """How mixtures are made.

    Attributes:
        min_seconds: shortest mixture; shorter clips are not used.
        max_seconds: longest mixture.
        max_level_db: the first speaker is louder by a uniform draw from plus/minus this.
        rms: root mean square of each source before the level difference.
        pairs: which pairs of people may meet; those of one family share language and recording channel.
        mode: ``min`` ends a mixture with the shorter clip; ``max`` with the longer, after which the other is silent.
    """

    min_seconds: float = 2.0
    max_seconds: float = 4.0
    max_level_db: float = 5.0
    rms: float = 0.1
    pairs: Pairs = "all"
    mode: Mode = "min"

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise InputError(f"The mode of a mixture is 'min' or 'max', not {self.mode!r}.")
        if not 0 < self.min_seconds <= self.max_seconds:
            raise InputError(f"Need 0 < min_seconds <= max_seconds, got {self.min_seconds} and {self.max_seconds}.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixture:
    """A mixture and what it was made of.

    Attributes:
        mixture: the sum of the sources, and of noise where a data set has it, shape ``(time,)``.
        sources: what each speaker says, shape ``(speakers, time)``.
        people: who they are; empty where that is not known.
        name: what a data set calls it.
    """

    mixture: Tensor
    sources: Tensor
    people: tuple[str, ...] = ()
    name: str = ""


class MixtureSampler:
    """Draws mixtures: a pair of different people, a clip of each, a stretch of each clip, a level difference.

    Pairs are drawn uniformly, so that a person with many clips is not heard more often than others.

    Raises:
        DataError: no pair of people has clips that are long enough.
    """

    def __init__(self, corpus: Corpus, settings: MixtureSettings) -> None:
        self._rate, self._settings = corpus.sample_rate, settings
        shortest = round(settings.min_seconds * corpus.sample_rate)
        clips = corpus.where(lambda clip: clip.samples.size >= shortest).clips
        self._clips: dict[str, list[Clip]] = {}
        for clip in clips:
            self._clips.setdefault(clip.voice.person, []).append(clip)
        self._pairs = [pair for pair in combinations(sorted(self._clips), 2) if self._may_meet(*pair)]
        if not self._pairs:
            kind = "" if settings.pairs == "all" else f"{settings.pairs} "
            raise DataError(
                f"No {kind}pair of people has clips of {settings.min_seconds} s or more "
                f"(people: {list(corpus.people)}); give more audio or ask for shorter mixtures."
            )

    def draw(self, rng: np.random.Generator) -> Mixture:
        """Draws one mixture of ``min_seconds`` to ``max_seconds``."""
        people = self._pairs[rng.integers(len(self._pairs))]
        chosen = [self._clips[person][rng.integers(len(self._clips[person]))] for person in people]
        sources = mix([clip.samples for clip in chosen], self._rate, self._settings, rng)
        return Mixture(mixture=sources.sum(dim=0), sources=sources, people=people)

    def batches(self, seed: int, size: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields endless batches of equal length; batch i depends only on the seed and i.

        Args:
            seed: of the whole stream.
            size: mixtures in a batch.
            start: number of the first batch, to resume a stream.

        Yields:
            Mixtures ``(batch, 1, time)`` and sources ``(batch, 2, time)``, cut to the shortest of the batch.
        """
        index = start
        while True:
            rng = np.random.default_rng((seed, index))
            drawn = [self.draw(rng) for _ in range(size)]
            yield batch_of(drawn)
            index += 1

    def fixed(self, seed: int, count: int) -> tuple[Mixture, ...]:
        """The same ``count`` mixtures for the same seed."""
        rng = np.random.default_rng(seed)
        return tuple(self.draw(rng) for _ in range(count))

    def _may_meet(self, first: str, second: str) -> bool:
        return self._settings.pairs in ("all", _kind(self._clips[first], self._clips[second]))


def mix(
    recordings: Sequence[npt.NDArray[np.number]], sample_rate: int, settings: MixtureSettings, rng: np.random.Generator
) -> Tensor:
    """Takes a stretch of each of two recordings, at a random level difference.

    Args:
        recordings: samples of any scale, each of shape ``(time,)``.
        sample_rate: in Hz.
        settings: lengths, levels and mode.
        rng: decides duration, level difference and where the stretches begin.

    Returns:
        The sources, shape ``(2, time)``; their sum is the mixture.
    """
    seconds = rng.uniform(settings.min_seconds, settings.max_seconds)
    sizes = [recording.size for recording in recordings]
    length = min(round(seconds * sample_rate), min(sizes) if settings.mode == "min" else max(sizes))
    difference_db = rng.uniform(-settings.max_level_db, settings.max_level_db)
    levels = settings.rms * 10 ** (np.array([difference_db, -difference_db]) / 40)
    stretches = [_stretch(recording, length, level, rng) for recording, level in zip(recordings, levels, strict=True)]
    return torch.from_numpy(np.stack(stretches))


def batch_of(mixtures: Sequence[Mixture]) -> tuple[Tensor, Tensor]:
    """Stacks mixtures ``(batch, 1, time)`` and sources ``(batch, speakers, time)``, cut to the shortest."""
    length = min(mixture.mixture.shape[-1] for mixture in mixtures)
    return (
        torch.stack([mixture.mixture[None, :length] for mixture in mixtures]),
        torch.stack([mixture.sources[:, :length] for mixture in mixtures]),
    )


def kinds_of_pairs(corpus: Corpus) -> tuple[Pairs, ...]:
    """Which of ``same-family`` and ``cross-family`` the people of the corpus can form."""
    clips = [[clip for clip in corpus.clips if clip.voice.person == person] for person in corpus.people]
    return tuple(sorted({_kind(*pair) for pair in combinations(clips, 2)}))


def _kind(first: list[Clip], second: list[Clip]) -> Pairs:
    shared = {clip.voice.family for clip in first} & {clip.voice.family for clip in second}
    return "same-family" if shared else "cross-family"


def _stretch(recording: npt.NDArray[np.number], length: int, rms: float, rng: np.random.Generator) -> Waveform:
    """Silence follows a recording that is shorter."""
    start = rng.integers(max(recording.size - length, 0) + 1)
    samples: npt.NDArray[np.float32] = recording[start : start + length].astype(np.float32)
    samples -= samples.mean()
    scaled = np.asarray(samples * (rms / max(float(np.sqrt(np.mean(samples**2))), 1e-8)), dtype=np.float32)
    return np.pad(scaled, (0, length - scaled.size))
