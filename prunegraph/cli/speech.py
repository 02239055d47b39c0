"""Two-speaker speech to learn from, as users name it: a folder of speakers, a corpus, LibriMix, manifests."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from prunegraph.cli.shell import note
from prunegraph.data.corpus import read_speaker_folder
from prunegraph.data.debian import load_debian_corpus
from prunegraph.data.speech import CorpusSpeech, Speech, librimix_speech, manifest_speech
from prunegraph.errors import InputError
from prunegraph.recovery.batches import mono_signal

_PANEL = "Speech"

Speakers = Annotated[
    Path | None, typer.Option(help="Folder with one sub-folder of audio per speaker.", rich_help_panel=_PANEL)
]
UseCorpus = Annotated[bool, typer.Option("--corpus", help="The corpus of Debian packages.", rich_help_panel=_PANEL)]
LibriMix = Annotated[
    Path | None,
    typer.Option(help="Folder that holds Libri2Mix, with train-100, dev and test.", rich_help_panel=_PANEL),
]
Manifests = Annotated[
    Path | None,
    typer.Option(
        help="Folder with JSON manifests in tr, cv and tt, as look2hear and asteroid write them.",
        rich_help_panel=_PANEL,
    ),
]
MixtureName = Annotated[
    str | None,
    typer.Option(help="Which manifest of mixtures to take, such as mix_clean.", rich_help_panel=_PANEL),
]
SampleRate = Annotated[int, typer.Option(min=1, help="Of the network, in Hz.", rich_help_panel=_PANEL)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """Which speech the user asked for.

    Attributes:
        speakers: folder with one sub-folder of audio per speaker.
        corpus: whether to take the corpus of Debian packages.
        librimix: folder that holds ``Libri2Mix``.
        manifests: folder with JSON manifests of the three parts.
        mixture: name of the manifest of the mixtures.
        sample_rate: in Hz.
    """

    speakers: Path | None
    corpus: bool
    librimix: Path | None
    manifests: Path | None
    mixture: str | None
    sample_rate: int

    @property
    def sources(self) -> int:
        """How many were named."""
        return sum([self.speakers is not None, self.corpus, self.librimix is not None, self.manifests is not None])


def check_speech(request: SpeechRequest) -> None:
    """Looks at what was typed, before any work.

    Raises:
        InputError: there is no source, or several.
    """
    if request.sources != 1:
        raise InputError("give one of --speakers, --corpus, --librimix and --manifests: where the mixtures come from")


def open_speech(request: SpeechRequest) -> Speech:
    """Opens it.

    Raises:
        InputError: there is no source, or several.
        DataError: it is missing, or a file is bad.
    """
    check_speech(request)
    if request.speakers is not None:
        return CorpusSpeech(read_speaker_folder(request.speakers, request.sample_rate))
    if request.librimix is not None:
        return librimix_speech(request.librimix, request.sample_rate)
    if request.manifests is not None:
        return manifest_speech(request.manifests, request.sample_rate, request.mixture)
    return CorpusSpeech(load_debian_corpus(request.sample_rate, progress=note))


class SpeechBatches:
    """The same batches of mixtures ``(batch, [1,] time)`` and sources ``(batch, 2, time)`` whenever gone through.

    Args:
        speech: its training part is heard.
        example: as long as the mixtures are to be, and as many.
        count: how many batches.
        seed: which mixtures they are.

    Raises:
        InputError: the example is not one tensor of audio.
        DataError: there is too little audio.
    """

    def __init__(self, speech: Speech, example: Any, *, count: int, seed: int) -> None:
        self._example = mono_signal(example, "criteria that listen need a network that takes")
        self._stream = speech.stream("train", self._example.shape[-1] / speech.sample_rate)
        self._count, self._seed = count, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = self._stream.batches(self._seed, self._example.shape[0])
        for mixture, sources in itertools.islice(batches, self._count):
            yield mixture.to(self._example).reshape(self._example.shape), sources.to(self._example)
