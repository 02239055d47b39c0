"""The mixtures that a protocol runs on: a data set of the paper, or the corpus of real speech."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, overload

from torch import Tensor

from prunegraph.data.corpus import Split
from prunegraph.data.librimix import read_librimix
from prunegraph.data.manifests import read_manifests
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings, batch_of
from prunegraph.data.recorded import RecordedMixtures, SegmentSampler
from prunegraph.errors import DataError
from prunegraph.recovery.batches import Batch

SAMPLE_RATE = 16_000
PARTS = (("train", "tr"), ("val", "cv"), ("test", "tt"))
"""Names of the folders with the manifests for training, validation and test: EchoSet's and LRS2-2Mix's."""
VALIDATION_SEED, TEST_SEED = 2, 1
VALIDATION_BATCHES, VALIDATION_SIZE = 25, 4


class Stream(Protocol):
    """Endless training batches that can be resumed."""

    def batches(self, seed: int, size: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Mixtures ``(batch, 1, time)`` and sources ``(batch, speakers, time)`` from batch number ``start`` on."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Speech:
    """Mixtures to train on, to decide by and to report.

    Attributes:
        description: what they are, for the reader of a table.
        sample_rate: in Hz.
        epoch: number of training mixtures in an epoch.
        train: endless training batches.
        validation: batches to decide by.
        test: mixtures whose scores are reported.
    """

    description: str
    sample_rate: int
    epoch: int
    train: Stream
    validation: Sequence[Batch]
    test: Sequence[Mixture]


class _Segments(Sequence[Batch]):
    """One stretch of each mixture, always the same, as batches of one; read when asked for."""

    def __init__(self, sampler: SegmentSampler) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...

    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        return batch_of([self._sampler.item(VALIDATION_SEED, numbers)])


def recorded_speech(data: str, folder: Path, seconds: float) -> Speech:
    """A data set of the paper at 16 kHz.

    Args:
        data: ``lrs2``, ``libri2mix`` or ``echoset``.
        folder: of Libri2Mix the one that holds ``Libri2Mix`` (train-100, dev and test, min mode); of the others that
            of the look2hear manifests, with folders ``tr``, ``cv``, ``tt`` or ``train``, ``val``, ``test``.
        seconds: length of a training stretch; shorter mixtures are left out. Test mixtures are whole.

    Raises:
        DataError: a part is missing, or a manifest is none.
    """
    read = _librimix if data == "libri2mix" else _manifests
    train, validation, test = read(folder)
    segments = SegmentSampler(train, seconds)
    return Speech(
        description=f"{len(segments):,} training, {len(validation):,} validation and {len(test):,} test mixtures",
        sample_rate=SAMPLE_RATE,
        epoch=len(segments),
        train=segments,
        validation=_Segments(SegmentSampler(validation, seconds)),
        test=test,
    )


def _librimix(folder: Path) -> list[RecordedMixtures]:
    return [read_librimix(folder, subset, SAMPLE_RATE) for subset in ("train-100", "dev", "test")]


def _manifests(folder: Path) -> list[RecordedMixtures]:
    return [read_manifests(_part(folder, names), SAMPLE_RATE) for names in PARTS]


def _part(folder: Path, names: Sequence[str]) -> Path:
    found = [folder / name for name in names if (folder / name).is_dir()]
    if not found:
        raise DataError(f"{folder} has no folder {' or '.join(names)}; give the folder that holds the three parts.")
    return found[0]


def corpus_speech(split: Split, seconds: float, *, epoch: int | None, test: int) -> Speech:
    """Mixtures of a corpus, made on the fly.

    Args:
        split: of the corpus.
        seconds: length of a training mixture.
        epoch: mixtures in an epoch; by default so many that each training utterance is heard once on average.
        test: number of test mixtures, of 2 to 4 s.

    Raises:
        DataError: the corpus is too small.
    """
    rate, exact = split.train.sample_rate, MixtureSettings(min_seconds=seconds, max_seconds=seconds)
    heard = sum(clip.samples.size >= round(seconds * rate) for clip in split.train.clips)
    count = epoch or max(1, heard // 2)
    held_out = MixtureSampler(split.val, exact).batches(VALIDATION_SEED, VALIDATION_SIZE)
    return Speech(
        description=f"an epoch is {count:,} mixtures of {seconds:g} s of two of {heard:,} training utterances; "
        f"{test} test mixtures of held-out utterances of the same voices",
        sample_rate=rate,
        epoch=count,
        train=MixtureSampler(split.train, exact),
        validation=list(islice(held_out, VALIDATION_BATCHES)),
        test=MixtureSampler(split.test, MixtureSettings()).fixed(TEST_SEED, test),
    )
