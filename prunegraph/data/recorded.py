"""Mixtures that lie in files, as data sets have them, and the streams of training examples made of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from prunegraph.data.audio import OnBad, Waveform, count_samples, read_track, refuse
from prunegraph.data.mixtures import Mixture, MixtureSettings, batch_of, mix
from prunegraph.errors import DataError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureFiles:
    """The files of one mixture.

    Attributes:
        name: what the data set calls it.
        sources: one file for each speaker.
        mixture: the file of the mixture; if none, it is the sum of the sources.
        samples: the length of each, where the data set says it.
        people: who the speakers are, where the data set says it.
    """

    name: str
    sources: tuple[Path, ...]
    mixture: Path | None = None
    samples: int | None = None
    people: tuple[str, ...] = ()

    @property
    def tracks(self) -> tuple[Path, ...]:
        """The mixture, if it has a file, and the sources."""
        return self.sources if self.mixture is None else (self.mixture, *self.sources)


class RecordedMixtures(Sequence[Mixture]):
    """A sequence of mixtures that are read when they are asked for; a bad file is refused by name then.

    Args:
        files: where they lie, at least one.
        sample_rate: of all files, in Hz.

    Raises:
        DataError: there are none; on access, a file that is missing, no audio, empty, cut short, silent or silent in
            one channel, holds NaN, or has another rate or length than the others of its mixture.
    """

    def __init__(self, files: Iterable[MixtureFiles], sample_rate: int) -> None:
        self.files, self.sample_rate = tuple(files), sample_rate
        if not self.files:
            raise DataError("There are no mixtures to read.")

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Mixture: ...

    @overload
    def __getitem__(self, index: slice) -> "RecordedMixtures": ...

    def __getitem__(self, index: int | slice) -> "Mixture | RecordedMixtures":
        if isinstance(index, slice):
            return RecordedMixtures(self.files[index], self.sample_rate)
        files = self.files[index]
        tracks: list[Waveform] = []
        for path in files.tracks:
            tracks.append(read_track(path, self.sample_rate, tracks[0].size if tracks else files.samples))
        signals = torch.from_numpy(np.stack(tracks))
        mixture, sources = (signals.sum(dim=0), signals) if files.mixture is None else (signals[0], signals[1:])
        return Mixture(mixture=mixture, sources=sources, people=files.people, name=files.name)

    def some(self, seed: int, count: int | None) -> "RecordedMixtures":
        """As many of them, drawn at random, in their order; all where there are no more, or ``count`` is None."""
        numbers = np.random.default_rng(seed).permutation(len(self))[:count]
        return RecordedMixtures((self.files[number] for number in sorted(numbers)), self.sample_rate)

    def usable(self, on_bad: OnBad = refuse) -> "RecordedMixtures":
        """Reads every file once and leaves out the mixtures of which a file is bad.

        Args:
            on_bad: called for each mixture with a bad file; raises by default, and the mixture is skipped if not.

        Raises:
            DataError: none is left, or what ``on_bad`` raises.
        """
        return RecordedMixtures(
            (files for number, files in enumerate(self.files) if self._is_usable(number, on_bad)), self.sample_rate
        )

    def at_least(self, seconds: float) -> "RecordedMixtures":
        """The mixtures that are not shorter.

        Raises:
            DataError: there are none, or a file whose length must be looked up is missing or no audio.
        """
        shortest = round(seconds * self.sample_rate)
        files = [files for files in self.files if _samples(files) >= shortest]
        if not files:
            raise DataError(f"None of {len(self)} mixtures has {seconds} s or more; ask for shorter ones.")
        return RecordedMixtures(files, self.sample_rate)

    def _is_usable(self, number: int, on_bad: OnBad) -> bool:
        try:
            self[number]
        except DataError as error:
            on_bad(error)
            return False
        return True


class _Stream(ABC):
    """Endless examples; item i depends only on the seed and i, and an epoch has each mixture once, in random order."""

    def __init__(self, mixtures: RecordedMixtures) -> None:
        self._mixtures = mixtures

    def __len__(self) -> int:
        """Number of items in an epoch."""
        return len(self._mixtures)

    def item(self, seed: int, index: int) -> Mixture:
        """The item of a stream.

        Args:
            seed: of the whole stream.
            index: number of the item, from 0; the second epoch begins at ``len(self)``.

        Raises:
            DataError: a file is bad.
        """
        epoch, place = divmod(index, len(self))
        number = int(np.random.default_rng((seed, epoch)).permutation(len(self))[place])
        return self._draw(number, np.random.default_rng((seed, epoch, place)))

    def batches(self, seed: int, size: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields endless batches; batch i holds the items from ``i * size`` on.

        Args:
            seed: of the whole stream.
            size: mixtures in a batch.
            start: number of the first batch, to resume a stream.

        Yields:
            Mixtures ``(batch, 1, time)`` and sources ``(batch, speakers, time)``, cut to the shortest of the batch.
        """
        first = start * size
        while True:
            yield batch_of([self.item(seed, index) for index in range(first, first + size)])
            first += size

    @abstractmethod
    def _draw(self, number: int, rng: np.random.Generator) -> Mixture:
        """An item made of the mixture with this number."""


class SegmentSampler(_Stream):
    """Stretches of equal length of recorded mixtures; shorter mixtures are left out.

    Args:
        mixtures: what is cut.
        seconds: length of a stretch.

    Raises:
        DataError: no mixture is long enough.
    """

    def __init__(self, mixtures: RecordedMixtures, seconds: float) -> None:
        self._length = round(seconds * mixtures.sample_rate)
        if self._length < 1:
            raise InputError(f"A segment of {seconds} s has no samples; ask for a longer one.")
        super().__init__(mixtures.at_least(seconds))

    def _draw(self, number: int, rng: np.random.Generator) -> Mixture:
        whole = self._mixtures[number]
        start = int(rng.integers(whole.mixture.shape[-1] - self._length + 1))
        stretch = slice(start, start + self._length)
        return Mixture(
            mixture=whole.mixture[stretch], sources=whole.sources[:, stretch], people=whole.people, name=whole.name
        )


class DynamicSampler(_Stream):
    """Dynamic mixing: a source of each recorded mixture meets a source of a random other one, at a random level.

    Two sources of the same person never meet, where the data set says who speaks. Where it does not, they are of
    different mixtures, and may seldom be of one person.

    Args:
        mixtures: whose sources are mixed; those shorter than ``settings.min_seconds`` are left out.
        settings: lengths, levels and mode; ``pairs`` must be ``all``. With ``min_seconds`` equal to ``max_seconds``
            all items are of that length.

    Raises:
        DataError: no two sources may be mixed.
        InputError: ``settings.pairs`` asks for families, which recorded mixtures do not have.

    Reference:
        Zeghidour and Grangier, "Wavesplit", IEEE/ACM TASLP 2021 (dynamic mixing).
    """

    def __init__(self, mixtures: RecordedMixtures, settings: MixtureSettings) -> None:
        if settings.pairs != "all":
            raise InputError(f"Recorded mixtures have no families, so pairs must be 'all', not {settings.pairs!r}.")
        super().__init__(mixtures.at_least(settings.min_seconds))
        self._settings = settings
        if len({_person(files, source) for files in self._mixtures.files for source in range(2)}) < 2:
            raise DataError("Dynamic mixing needs sources of two people, or of two mixtures; give more mixtures.")

    def _draw(self, number: int, rng: np.random.Generator) -> Mixture:
        chosen = [self._source(number, rng)]
        while len(chosen) < 2:
            candidate = self._source(int(rng.integers(len(self))), rng)
            if candidate[1] != chosen[0][1]:
                chosen.append(candidate)
        rate = self._mixtures.sample_rate
        sources = mix([read_track(path, rate) for path, _ in chosen], rate, self._settings, rng)
        people = tuple(person for _, person in chosen)
        return Mixture(
            mixture=sources.sum(dim=0), sources=sources, people=people, name="+".join(p.stem for p, _ in chosen)
        )

    def _source(self, number: int, rng: np.random.Generator) -> tuple[Path, str]:
        files = self._mixtures.files[number]
        source = int(rng.integers(len(files.sources)))
        return files.sources[source], _person(files, source)


def _person(files: MixtureFiles, source: int) -> str:
    """Who speaks; where nobody knows, a name that the sources of one mixture share."""
    return files.people[source] if files.people else f"speaker in {files.name}"


def _samples(files: MixtureFiles) -> int:
    return count_samples(files.tracks[0]) if files.samples is None else files.samples
