"""A corpus: clips of known people, from a folder of speakers or from decoded packages; filtering and splits."""

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from prunegraph.data.audio import AUDIO_SUFFIXES, OnBad, Waveform, read_audio, read_speech, refuse, trim
from prunegraph.errors import DataError
from prunegraph.optional_packages import import_optional

SHORTEST_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A set of recordings of one person.

    Attributes:
        name: unique name of the set.
        person: who speaks; one person may have several voices (languages).
        family: recordings that share language and channel; a pair within a family is harder to separate.
        credit: whom to name, and under which licence, where results are shown.
    """

    name: str
    person: str
    family: str
    credit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """One utterance.

    Attributes:
        voice: whose it is.
        name: file name, the same in each language for the same prompt.
        samples: 16-bit samples, shape ``(time,)``.
    """

    voice: Voice
    name: str
    samples: npt.NDArray[np.int16]


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Clips at one sample rate."""

    sample_rate: int
    clips: tuple[Clip, ...]

    @cached_property
    def people(self) -> tuple[str, ...]:
        """Names of the people heard, sorted."""
        return tuple(sorted({clip.voice.person for clip in self.clips}))

    @cached_property
    def credits(self) -> tuple[str, ...]:
        """Whom to name where results are shown."""
        return tuple(dict.fromkeys(clip.voice.credit for clip in self.clips if clip.voice.credit))

    @property
    def seconds(self) -> float:
        """Total duration."""
        return sum(clip.samples.size for clip in self.clips) / self.sample_rate

    def where(self, keep: Callable[[Clip], bool]) -> "Corpus":
        """The corpus of the clips for which ``keep`` is true."""
        return replace(self, clips=tuple(clip for clip in self.clips if keep(clip)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Parts of a corpus that share no utterance."""

    train: Corpus
    val: Corpus
    test: Corpus


def split_by_utterance(corpus: Corpus) -> Split:
    """Every voice in every part; 80/10/10 % of the utterances by a hash of their file names.

    The same prompt read by several voices falls into the same part, so that no text is shared either.
    """
    return Split(
        train=corpus.where(lambda clip: _percentile(clip) < 80),
        val=corpus.where(lambda clip: 80 <= _percentile(clip) < 90),
        test=corpus.where(lambda clip: _percentile(clip) >= 90),
    )


def split_by_speaker(corpus: Corpus, test_people: Collection[str]) -> Split:
    """Tests on people that are never heard in training; validates on 10 % of the training people's utterances.

    Raises:
        DataError: a name is nobody's in the corpus, or nobody is left to train on.
    """
    unknown = sorted(set(test_people) - set(corpus.people))
    if unknown or set(test_people) >= set(corpus.people):
        raise DataError(f"Cannot hold out {unknown or list(test_people)}: the corpus has {list(corpus.people)}.")
    heard = corpus.where(lambda clip: clip.voice.person not in test_people)
    return Split(
        train=heard.where(lambda clip: _percentile(clip) < 90),
        val=heard.where(lambda clip: _percentile(clip) >= 90),
        test=corpus.where(lambda clip: clip.voice.person in test_people),
    )


def read_voice(voice: Voice, files: Iterable[Path], sample_rate: int) -> tuple[Clip, ...]:
    """Decodes, resamples and trims the recordings of a voice; drops those shorter than half a second.

    Raises:
        DataError: a file is no audio, or nothing usable is left.
    """
    clips = _read_clips(voice, files, sample_rate, read_audio, refuse)
    if not clips:
        raise _nothing_usable(voice)
    return clips


def read_speaker_folder(folder: Path, sample_rate: int, *, on_bad: OnBad = refuse) -> Corpus:
    """Reads a folder that has one sub-folder of audio files per speaker.

    Recordings are resampled and mixed down to mono, silent edges are trimmed, and what is shorter than half a second
    is left out.

    Args:
        folder: ``folder/<speaker>/**/<utterance>.wav`` (or FLAC, Ogg, MP3, G.722); symbolic links are skipped.
        sample_rate: rate of the corpus in Hz.
        on_bad: called for each bad file and each speaker of whom nothing is left; raises by default. If it returns,
            the file or speaker is skipped. Bad are files that cannot be read, are empty, cut short or silent, have a
            silent channel, or hold NaN.

    Raises:
        DataError: there is no such folder, fewer than two speakers are left, or what ``on_bad`` raises.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    speakers = {path.name: _audio_files(path) for path in sorted(folder.glob("*/"))}
    clips = [clip for name, files in speakers.items() if files for clip in _clips_of(name, files, sample_rate, on_bad)]
    speaking = len({clip.voice.name for clip in clips})
    if speaking < 2:
        raise DataError(
            f"{folder} has {speaking} speakers with audio, at least 2 are needed: "
            "give a folder with one sub-folder of audio files per speaker."
        )
    return Corpus(sample_rate=sample_rate, clips=tuple(clips))


def write_speaker_folder(corpus: Corpus, folder: Path) -> None:
    """Writes ``folder/<person>/<voice>/<clip>.flac``, which ``read_speaker_folder`` reads; all or nothing.

    Clips keep their names, so that ``split_by_utterance`` parts the folder as it parts the corpus.

    Raises:
        DataError: something is there already.
        OSError: the disk is full or not writable; nothing is left behind.
        MissingPackageError: soundfile is not installed.
    """
    soundfile = import_optional("soundfile", extra="evaluation")
    if folder.exists() or folder.is_symlink():
        raise DataError(f"{folder} exists already; give the name of a new folder.")
    partial = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
    try:
        for clip in corpus.clips:
            path = _free(partial / clip.voice.person / clip.voice.name, f"{clip.name}.flac")
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, clip.samples, corpus.sample_rate, subtype="PCM_16")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _free(folder: Path, name: str) -> Path:
    """The path, in a further folder where a clip of that name is there already."""
    return next(path for number in count() if not (path := folder / (str(number) if number else "") / name).exists())


def _clips_of(speaker: str, files: Iterable[Path], sample_rate: int, on_bad: OnBad) -> tuple[Clip, ...]:
    voice = Voice(name=speaker, person=speaker, family=speaker)
    clips = _read_clips(voice, files, sample_rate, read_speech, on_bad)
    if not clips:
        on_bad(_nothing_usable(voice))
    return clips


def _read_clips(
    voice: Voice, files: Iterable[Path], sample_rate: int, read: Callable[[Path, int], Waveform], on_bad: OnBad
) -> tuple[Clip, ...]:
    clips = []
    for path in sorted(files):
        try:
            samples = trim(read(path, sample_rate), sample_rate)
        except DataError as error:
            on_bad(error)
            continue
        if samples.size >= SHORTEST_SECONDS * sample_rate:
            quantised = np.round(samples.clip(-1, 1) * (2**15 - 1)).astype(np.int16)
            clips.append(Clip(voice=voice, name=path.stem, samples=quantised))
    return tuple(clips)


def _nothing_usable(voice: Voice) -> DataError:
    return DataError(f"Voice {voice.name!r} has no clip of {SHORTEST_SECONDS} s or more that is not silent.")


def _audio_files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and not p.is_symlink()]


def _percentile(clip: Clip) -> int:
    return int.from_bytes(hashlib.sha256(clip.name.encode()).digest()[:4]) % 100
