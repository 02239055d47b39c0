from pathlib import Path

import numpy as np
import pytest
import soundfile
from G722 import G722

from prunegraph.data.audio import read_audio, trim
from prunegraph.errors import DataError
from tests.data.speakers import utterance


def _tone(frequency: float, seconds: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "rate"), [(".wav", 16000), (".flac", 44100), (".ogg", 22050), (".wav", 8000)])
def test_a_tone_keeps_pitch_level_and_duration_at_the_new_rate(tmp_path: Path, suffix: str, rate: int) -> None:
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, _tone(440, 1.0, rate), rate)
    samples = read_audio(path, 8000)
    spectrum = np.abs(np.fft.rfft(samples[:8000]))
    assert abs(samples.size - 8000) <= 1
    assert samples.dtype == np.float32
    assert spectrum.argmax() == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.array([[0.5, 0.25], [-0.5, 0.0]]), 8000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path, 8000), [0.375, -0.25])


def test_g722_is_decoded(tmp_path: Path) -> None:
    tone = _tone(300, 1.0, 16000)
    path = tmp_path / "tone.g722"
    path.write_bytes(G722(16000, 64000).encode((tone * 2**15).astype(np.int16)))
    samples = read_audio(path, 16000)
    lag = np.correlate(samples, tone[:8000], "valid").argmax()
    assert np.corrcoef(samples[lag : lag + 8000], tone[:8000])[0, 1] > 0.99


def test_nothing_recorded_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "empty.g722").touch()
    assert read_audio(tmp_path / "empty.g722", 8000).size == 0


@pytest.mark.parametrize("name", ["missing.wav", "missing.g722", "text.wav", "cut.flac"])
def test_what_is_no_audio_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "cut.flac").write_bytes(b"fLaC\0\0")
    with pytest.raises(DataError, match=name):
        read_audio(tmp_path / name, 8000)


def test_samples_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"nan\.wav.*NaN"):
        read_audio(tmp_path / "nan.wav", 8000)


def test_trimming_removes_the_faint_edges_only() -> None:
    voice = utterance(120, 1.0, 8000, seed=0)
    hiss = 1e-4 * np.ones(4000, np.float32)
    trimmed = trim(np.concatenate([hiss, voice, hiss]), 8000, margin_seconds=0)
    assert 0.95 * voice.size < trimmed.size <= voice.size
    assert np.isin(trimmed, voice).all()


@pytest.mark.parametrize("pause", [np.zeros(0), np.zeros(8000), 1e-3 * np.ones(8000)])
def test_a_recorded_pause_becomes_empty(pause: np.ndarray) -> None:
    assert trim(pause.astype(np.float32), 8000).size == 0
