"""Two-speaker mixtures as users name them in a shell: a folder of speakers, a corpus, LibriMix, manifests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from prunegraph.cli.shell import note
from prunegraph.cli.speech import SpeechRequest, check_speech
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
    """Which mixtures the user asked for.

    Attributes:
        source: where they come from; manifests are those of one part of a data set.
        part: of a folder or corpus: utterances that are held out from training, or all.
        subset: of LibriMix.
        task: of LibriMix.
        mode: of mixtures that are made, and of LibriMix.
        count: how many; by default all recorded ones, or ``DEFAULT_COUNT`` that are made.
        skip_bad: whether bad files are reported and skipped, instead of refused.
        seed: which mixtures are made or chosen.
    """

    source: SpeechRequest
    part: Literal["test", "all"]
    subset: str
    task: Literal["sep_clean", "sep_noisy"]
    mode: Mode
    count: int | None
    skip_bad: bool
    seed: int


def open_mixtures(request: MixtureRequest) -> Sequence[Mixture]:
    """The mixtures; bad files that are skipped are noted on standard error.

    Raises:
        InputError: there is no source of mixtures, or several.
        DataError: there are none, or a file is bad.
    """
    source = request.source
    check_speech(source)
    if source.speakers is not None:
        on_bad = _report if request.skip_bad else refuse
        return _made(read_speaker_folder(source.speakers, source.sample_rate, on_bad=on_bad), request)
    if source.corpus:
        return _made(load_debian_corpus(source.sample_rate, progress=note), request)
    return _chosen(_recorded(request), request)


def _recorded(request: MixtureRequest) -> RecordedMixtures:
    source = request.source
    if source.manifests is not None:
        return read_manifests(source.manifests, source.sample_rate, mixture=source.mixture)
    if request.subset not in get_args(Subset):
        raise InputError(f"LibriMix has no subset {request.subset!r}; there are {', '.join(get_args(Subset))}")
    root, subset = cast(Path, source.librimix), cast(Subset, request.subset)
    return read_librimix(root, subset, source.sample_rate, mode=request.mode, task=request.task)


def _made(corpus: Corpus, request: MixtureRequest) -> Sequence[Mixture]:
    heard = corpus if request.part == "all" else split_by_utterance(corpus).test
    return MixtureSampler(heard, MixtureSettings(mode=request.mode)).fixed(request.seed, request.count or DEFAULT_COUNT)


def _chosen(recorded: RecordedMixtures, request: MixtureRequest) -> RecordedMixtures:
    chosen = recorded.some(request.seed, request.count)
    return chosen.usable(_report) if request.skip_bad else chosen


def _report(error: DataError) -> None:
    note(f"skipped: {error}")
