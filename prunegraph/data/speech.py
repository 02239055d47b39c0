"""Two-speaker speech in three parts that share no utterance: to learn from, to validate, and to test on."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from torch import Tensor

from prunegraph.data.corpus import Corpus, split_by_utterance
from prunegraph.data.librimix import Subset, read_librimix
from prunegraph.data.manifests import read_manifests
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings
from prunegraph.data.recorded import RecordedMixtures, SegmentSampler
from prunegraph.errors import DataError

Part: TypeAlias = Literal["train", "validation", "test"]

_SUBSETS: dict[Part, Subset] = {"train": "train-100", "validation": "dev", "test": "test"}
_FOLDERS: dict[Part, str] = {"train": "tr", "validation": "cv", "test": "tt"}


class MixtureStream(Protocol):
    """Endless batches of mixtures."""

    def batches(self, seed: int, size: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Mixtures ``(size, 1, time)`` and sources ``(size, 2, time)``; batch i depends only on the seed and i."""


class Speech(ABC):
    """Mixtures of two speakers, in parts that share no utterance.

    Attributes:
        sample_rate: in Hz.
    """

    sample_rate: int

    @abstractmethod
    def stream(self, part: Literal["train", "validation"], seconds: float) -> MixtureStream:
        """Mixtures of one duration.

        Raises:
            DataError: the part is missing, or has nothing that is long enough.
        """

    @abstractmethod
    def test(self, seed: int, count: int) -> Sequence[Mixture]:
        """The same whole mixtures for the same seed; fewer where there are fewer.

        Raises:
            DataError: the part is missing.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Of names and lengths: quick, and every recording that comes, goes or changes its length tells."""


class CorpusSpeech(Speech):
    """Mixtures that are made of a corpus, split by utterance."""

    def __init__(self, corpus: Corpus) -> None:
        self.sample_rate, self._corpus, self._split = corpus.sample_rate, corpus, split_by_utterance(corpus)

    def stream(self, part: Literal["train", "validation"], seconds: float) -> MixtureSampler:
        """See `Speech.stream`; nothing is ever drawn twice."""
        heard = self._split.train if part == "train" else self._split.val
        try:
            return MixtureSampler(heard, MixtureSettings(min_seconds=seconds, max_seconds=seconds))
        except DataError as error:
            use = "trained on" if part == "train" else "kept for validation"
            raise DataError(f"Of the {len(heard.clips)} recordings {use}: {error}") from error

    def test(self, seed: int, count: int) -> Sequence[Mixture]:
        """See `Speech.test`."""
        return MixtureSampler(self._split.test, MixtureSettings()).fixed(seed, count)

    def fingerprint(self) -> str:
        """See `Speech.fingerprint`."""
        clips = sorted(f"{clip.voice.name}/{clip.name} {clip.samples.size}" for clip in self._corpus.clips)
        return _digest(self.sample_rate, clips)


class RecordedSpeech(Speech):
    """Mixtures that lie in files, a data set's own parts.

    Args:
        read: finds the mixtures of a part.
        sample_rate: of all files, in Hz.
    """

    def __init__(self, read: Callable[[Part], RecordedMixtures], sample_rate: int) -> None:
        self.sample_rate, self._read = sample_rate, read

    def stream(self, part: Literal["train", "validation"], seconds: float) -> SegmentSampler:
        """See `Speech.stream`; stretches of the mixtures."""
        return SegmentSampler(self._read(part), seconds)

    def test(self, seed: int, count: int) -> RecordedMixtures:
        """See `Speech.test`."""
        return self._read("test").some(seed, count)

    def fingerprint(self) -> str:
        """See `Speech.fingerprint`."""
        parts: tuple[Part, ...] = ("train", "test")
        names = [f"{part}/{files.name} {files.samples}" for part in parts for files in self._read(part).files]
        return _digest(self.sample_rate, names)


def librimix_speech(root: Path, sample_rate: int) -> RecordedSpeech:
    """Libri2Mix without noise: ``train-100``, ``dev`` and ``test``; see `read_librimix`."""
    return RecordedSpeech(lambda part: read_librimix(root, _SUBSETS[part], sample_rate), sample_rate)


def manifest_speech(folder: Path, sample_rate: int, mixture: str | None = None) -> RecordedSpeech:
    """Manifests in ``tr``, ``cv`` and ``tt``, as look2hear and asteroid write them; see `read_manifests`."""
    read = partial(read_manifests, sample_rate=sample_rate, mixture=mixture)
    return RecordedSpeech(lambda part: read(folder / _FOLDERS[part]), sample_rate)


def _digest(sample_rate: int, names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join([str(sample_rate), *names]).encode()).hexdigest()[:16]
