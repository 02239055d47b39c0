"""Reading one audio file: decode, mix down to mono, resample, trim the silent edges."""

from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from prunegraph.errors import DataError

Waveform: TypeAlias = npt.NDArray[np.float32]
"""Samples of one channel, shape ``(time,)``, full scale 1."""

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".g722"})
G722_RATE, G722_BITS_PER_SECOND = 16_000, 64_000
FAINTEST_PEAK = 1e-2  # -40 dB of full scale: below it a file is a recorded pause, not speech


def read_audio(path: Path, sample_rate: int) -> Waveform:
    """Reads a file as mono at the wanted rate.

    Args:
        path: any format of libsndfile, or raw G.722 (``.g722``: 16 kHz, 64 kbit/s).
        sample_rate: rate of the result in Hz.

    Returns:
        The waveform, shape ``(time,)``; empty if the recording is.

    Raises:
        DataError: the file is missing or no audio.
    """
    samples, rate = _read_g722(path) if path.suffix == ".g722" else _read_sndfile(path)
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds NaN or infinite samples; remove or replace the file.")
    return (
        samples
        if rate == sample_rate or not samples.size
        else np.asarray(soxr.resample(samples, rate, sample_rate), dtype=np.float32)
    )


def trim(samples: Waveform, sample_rate: int, *, below_peak_db: float = 40.0, margin_seconds: float = 0.02) -> Waveform:
    """Cuts the edges that stay more than ``below_peak_db`` under the peak; a recorded pause becomes empty."""
    level = np.abs(samples)
    peak = float(level.max(initial=0.0))
    if peak < FAINTEST_PEAK:
        return samples[:0]
    loud = np.flatnonzero(level > peak * 10 ** (-below_peak_db / 20))
    margin = round(margin_seconds * sample_rate)
    return samples[max(0, loud[0] - margin) : loud[-1] + 1 + margin]


def _read_sndfile(path: Path) -> tuple[Waveform, int]:
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path} cannot be read as audio ({error}); remove it or convert it to WAV or FLAC.") from error
    return samples.mean(axis=1, dtype=np.float32), rate


def _read_g722(path: Path) -> tuple[Waveform, int]:
    try:
        from G722 import G722  # needed for one corpus only
    except ImportError as error:
        raise DataError(f"{path} is G.722 audio: install the package G722 to read it.") from error
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    decoded = G722(G722_RATE, G722_BITS_PER_SECOND).decode(encoded) if encoded else ()
    return np.asarray(decoded, dtype=np.float32) / np.float32(2**15), G722_RATE
