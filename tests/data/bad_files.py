"""Writers of bad audio files, and what is said about each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from tests.data.speakers import utterance

RATE, SECONDS = 8000, 1.2
SAMPLES = round(RATE * SECONDS)


def good(path: Path, *, pitch: float = 120, rate: int = RATE, samples: int = SAMPLES) -> Path:
    soundfile.write(path, utterance(pitch, samples / rate, rate, seed=0), rate)
    return path


def _samples(change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> Callable[[Path], object]:
    voice = utterance(120, SECONDS, RATE, seed=0)
    return lambda path: soundfile.write(path, change(voice), RATE, format="WAV", subtype="FLOAT")


def _with_nan(voice: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    voice = voice.copy()
    voice[100] = np.nan
    return voice


def _cut(path: Path) -> None:
    content = good(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "cannot be read"),
    "no_audio": (lambda path: path.write_text("hello"), "cannot be read as audio"),
    "no_bytes": (lambda path: path.write_bytes(b""), "cannot be read as audio"),
    "empty": (_samples(lambda voice: voice[:0]), "is empty"),
    "truncated": (_cut, "is cut short"),
    "nan": (_samples(_with_nan), "NaN"),
    "infinite": (_samples(lambda voice: voice / np.float32(0)), "NaN or infinite"),
    "silent": (_samples(np.zeros_like), "is silent;"),
    "constant": (_samples(lambda voice: np.full_like(voice, 0.3)), "is silent;"),
    "dead_channel": (
        _samples(lambda voice: np.stack([voice, np.zeros_like(voice)], axis=1)),
        "is silent in channel 2 of 2",
    ),
}
"""Name -> writer of a WAV file of ``SAMPLES`` samples at ``RATE``, and the words that describe it."""
