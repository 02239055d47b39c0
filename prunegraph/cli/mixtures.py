"""Two-speaker mixtures as users name them in a shell: a folder of speakers, a corpus, LibriMix, manifests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from prunegraph.cli.shell import note
from prunegraph.data.audio import refuse
from prunegraph.data.corpus import Corpus, read_speaker_folder, split_by_utterance
from prunegraph.data.debian import load_debian_corpus
from prunegraph.data.librimix import Subset, read_librimix
from prunegraph.data.manifests import read_manifests
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings, Mode
from prunegraph.data.recorded import RecordedMixtures
from prunegraph.errors import DataError, InputError

DEFAULT_COUNT = 100
"""Mixtures made where the user gives no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureRequest:
    """Which mixtures the user asked for; exactly one of the first four says where they come from.

    Attributes:
        speakers: folder with one sub-folder of audio per speaker.
        corpus: whether to take the corpus of Debian packages.
        librimix: folder that holds ``Libri2Mix``.
        manifests: folder of JSON manifests.
        sample_rate: in Hz.
        part: of a folder or corpus: utterances that are held out from training, or all.
        subset: of LibriMix.
        task: of LibriMix.
        mode: of mixtures that are made, and of LibriMix.
        mixture: name of the manifest of the mixtures.
        count: how many; by default all recorded ones, or ``DEFAULT_COUNT`` that are made.
        skip_bad: whether bad files are reported and skipped, instead of refused.
        seed: which mixtures are made or chosen.
    """

    speakers: Path | None
    corpus: bool
    librimix: Path | None
    manifests: Path | None
    sample_rate: int
    part: Literal["test", "all"]
    subset: str
    task: Literal["sep_clean", "sep_noisy"]
    mode: Mode
    mixture: str | None
    count: int | None
    skip_bad: bool
    seed: int


def open_mixtures(request: MixtureRequest) -> Sequence[Mixture]:
    """The mixtures; bad files that are skipped are noted on standard error.

    Raises:
        InputError: there is no source of mixtures, or several.
        DataError: there are none, or a file is bad.
    """
    given = [request.speakers is not None, request.corpus, request.librimix is not None, request.manifests is not None]
    if sum(given) != 1:
        raise InputError("give one of --speakers, --corpus, --librimix and --manifests: where the mixtures come from")
    if request.speakers is not None:
        on_bad = _report if request.skip_bad else refuse
        return _made(read_speaker_folder(request.speakers, request.sample_rate, on_bad=on_bad), request)
    if request.corpus:
        return _made(load_debian_corpus(request.sample_rate, progress=note), request)
    return _chosen(_recorded(request), request)


def _recorded(request: MixtureRequest) -> RecordedMixtures:
    if request.manifests is not None:
        return read_manifests(request.manifests, request.sample_rate, mixture=request.mixture)
    if request.subset not in get_args(Subset):
        raise InputError(f"LibriMix has no subset {request.subset!r}; there are {', '.join(get_args(Subset))}")
    root, subset = cast(Path, request.librimix), cast(Subset, request.subset)
    return read_librimix(root, subset, request.sample_rate, mode=request.mode, task=request.task)


def _made(corpus: Corpus, request: MixtureRequest) -> Sequence[Mixture]:
    heard = corpus if request.part == "all" else split_by_utterance(corpus).test
    return MixtureSampler(heard, MixtureSettings(mode=request.mode)).fixed(request.seed, request.count or DEFAULT_COUNT)


def _chosen(recorded: RecordedMixtures, request: MixtureRequest) -> RecordedMixtures:
    chosen = recorded.some(request.seed, request.count)
    return chosen.usable(_report) if request.skip_bad else chosen


def _report(error: DataError) -> None:
    note(f"skipped: {error}")
