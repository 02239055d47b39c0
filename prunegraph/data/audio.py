"""Reading one audio file: decode, check, mix down to mono, resample, trim the silent edges."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from prunegraph.errors import DataError
from prunegraph.optional_packages import import_optional

Waveform: TypeAlias = npt.NDArray[np.float32]
"""Samples of one channel, shape ``(time,)``, full scale 1."""

OnBad: TypeAlias = Callable[[DataError], None]
"""What to do about a bad file: raise, or return to have it skipped; the error names the file and what is wrong."""

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".g722"})
G722_RATE, G722_BITS_PER_SECOND = 16_000, 64_000
FAINTEST_PEAK = 1e-2  # -40 dB of full scale: below it a file is a recorded pause, not speech
SILENCE_PEAK = 1e-4  # -80 dB, three steps of 16 bits: below it a channel was not recorded at all

_PROMISED = re.compile(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
_STREAMED_BYTES = 0x7FFF_0000
"""Programs that write WAV to a pipe cannot know its size and promise about this or more."""


def refuse(error: DataError) -> None:
    """Refuses bad audio: raises the error."""
    raise error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Recording:
    """A decoded file; ``samples`` has shape ``(time, channels)``."""

    samples: npt.NDArray[np.float32]
    rate: int
    cut_short: bool = False


def read_audio(path: Path, sample_rate: int) -> Waveform:
    """Reads a file as mono at the wanted rate.

    Args:
        path: any format of libsndfile, or raw G.722 (``.g722``: 16 kHz, 64 kbit/s).
        sample_rate: rate of the result in Hz.

    Returns:
        The waveform, shape ``(time,)``; empty if the recording is.

    Raises:
        DataError: the file is missing or no audio.
        MissingPackageError: the package that decodes it is not installed.
    """
    recording = _decode(path)
    _check_finite(path, recording)
    return _mono(recording, sample_rate)


def read_speech(path: Path, sample_rate: int) -> Waveform:
    """As ``read_audio``, but refuses recordings of which something is missing.

    Raises:
        DataError: the file is missing, no audio, empty, cut short, silent, one of its channels is silent, or it holds
            NaN or infinite samples.
        MissingPackageError: the package that decodes it is not installed.
    """
    recording = _decode(path)
    _check_complete(path, recording)
    return _mono(recording, sample_rate)


def read_track(path: Path, sample_rate: int, samples: int | None = None) -> Waveform:
    """As ``read_speech``, but a track of a data set must have the expected rate and length: it is not resampled.

    Args:
        path: the file.
        sample_rate: its rate in Hz.
        samples: its length, if that is known.

    Raises:
        DataError: as for ``read_speech``, or rate or length are others.
        MissingPackageError: the package that decodes it is not installed.
    """
    recording = _decode(path)
    _check_complete(path, recording)
    if recording.rate != sample_rate:
        raise DataError(f"{path} has a sample rate of {recording.rate} Hz, expected are {sample_rate} Hz; resample it.")
    if samples is not None and len(recording.samples) != samples:
        raise DataError(f"{path} has {len(recording.samples)} samples, expected are {samples}; make the data set anew.")
    return _mono(recording, sample_rate)


def count_samples(path: Path) -> int:
    """Length of a file in samples as its header says, without decoding it.

    Raises:
        DataError: the file is missing or no audio.
        MissingPackageError: soundfile is not installed.
    """
    soundfile = import_optional("soundfile", extra="evaluation")
    try:
        return int(soundfile.info(path).frames)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(path, error) from error


def trim(samples: Waveform, sample_rate: int, *, below_peak_db: float = 40.0, margin_seconds: float = 0.02) -> Waveform:
    """Cuts the edges that stay more than ``below_peak_db`` under the peak; a recorded pause becomes empty."""
    level = np.abs(samples)
    peak = float(level.max(initial=0.0))
    if peak < FAINTEST_PEAK:
        return samples[:0]
    loud = np.flatnonzero(level > peak * 10 ** (-below_peak_db / 20))
    margin = round(margin_seconds * sample_rate)
    return samples[max(0, loud[0] - margin) : loud[-1] + 1 + margin]


def _decode(path: Path) -> _Recording:
    return _decode_g722(path) if path.suffix == ".g722" else _decode_sndfile(path)


def _decode_sndfile(path: Path) -> _Recording:
    soundfile = import_optional("soundfile", extra="evaluation")
    try:
        with soundfile.SoundFile(path) as file:
            samples = file.read(dtype="float32", always_2d=True)
            cut_short = len(samples) < file.frames or _lacks_bytes(file.extra_info)
            return _Recording(samples=samples, rate=file.samplerate, cut_short=cut_short)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(path, error) from error


def _lacks_bytes(log: str) -> bool:
    """Whether libsndfile found fewer bytes than the header of a WAV or AIFF file promises."""
    found = _PROMISED.search(log)
    return found is not None and int(found[2]) < int(found[1]) < _STREAMED_BYTES


def _decode_g722(path: Path) -> _Recording:
    g722 = import_optional("G722", extra="demo")  # needed for one corpus only
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    decoded = g722.G722(G722_RATE, G722_BITS_PER_SECOND).decode(encoded) if encoded else ()
    samples = np.asarray(decoded, dtype=np.float32) / np.float32(2**15)
    return _Recording(samples=samples[:, None], rate=G722_RATE)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as audio ({error}); remove it or convert it to WAV or FLAC.")


def _mono(recording: _Recording, sample_rate: int) -> Waveform:
    samples: Waveform = recording.samples.mean(axis=1, dtype=np.float32)
    if recording.rate == sample_rate or not samples.size:
        return samples
    soxr = import_optional("soxr", extra="evaluation")
    return np.asarray(soxr.resample(samples, recording.rate, sample_rate), dtype=np.float32)


def _check_finite(path: Path, recording: _Recording) -> None:
    if not np.isfinite(recording.samples).all():
        raise DataError(f"{path} holds NaN or infinite samples; remove or replace the file.")


def _check_complete(path: Path, recording: _Recording) -> None:
    _check_finite(path, recording)
    samples = recording.samples
    if not samples.size:
        raise DataError(f"{path} is empty: it holds no samples; remove or replace the file.")
    if recording.cut_short:
        raise DataError(f"{path} is cut short: it holds fewer samples than its header says; copy the file again.")
    # What was not recorded may be a constant other than zero.
    silent = samples.max(axis=0) - samples.min(axis=0) < SILENCE_PEAK
    if silent.all():
        raise DataError(f"{path} is silent; remove or replace the file.")
    if silent.any():
        channels = ", ".join(str(channel + 1) for channel in np.flatnonzero(silent))
        raise DataError(f"{path} is silent in channel {channels} of {silent.size}; replace it or keep the other alone.")
