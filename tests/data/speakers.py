"""Synthetic speakers: buzzing voices of different pitch with pauses, written as audio files."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile


def utterance(pitch: float, seconds: float, sample_rate: int, seed: int) -> npt.NDArray[np.float32]:
    """Harmonics of a wavering pitch, switched on and off like syllables; shape ``(time,)``."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * pitch * (time + 0.002 * np.sin(2 * np.pi * rng.uniform(2, 4) * time))
    voice = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 9))
    syllables = 0.2 + 0.8 * (np.sin(2 * np.pi * rng.uniform(1, 3) * time) > -0.3)
    return np.asarray(0.2 * voice * syllables, dtype=np.float32)


def write_speakers(
    folder: Path, *, speakers: int = 3, clips: int = 12, seconds: float = 1.2, sample_rate: int = 8000
) -> Path:
    """Writes ``folder/speaker<i>/clip<j>.wav`` and returns the folder."""
    for speaker in range(speakers):
        (folder / f"speaker{speaker}").mkdir(parents=True)
        for clip in range(clips):
            samples = utterance(90 * 1.6**speaker, seconds, sample_rate, seed=100 * speaker + clip)
            soundfile.write(folder / f"speaker{speaker}" / f"clip{clip}.wav", samples, sample_rate)
    return folder
