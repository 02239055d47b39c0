"""Bad files are named, and refused or skipped as the caller wishes."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from prunegraph.data.audio import count_samples, read_speech, read_track
from prunegraph.data.corpus import read_speaker_folder
from prunegraph.errors import DataError
from tests.data.bad_files import BAD_FILES, RATE, SAMPLES, good
from tests.data.speakers import utterance, write_speakers


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, kind: str) -> None:
    write, words = BAD_FILES[kind]
    path = tmp_path / f"{kind}.wav"
    write(path)
    for read in (read_speech, read_track):
        with pytest.raises(DataError) as caught:
            read(path, RATE)
        assert str(caught.value).startswith(f"{path} ")
        assert words in str(caught.value)


@pytest.mark.parametrize(("rate", "samples", "words"), [(16000, SAMPLES, "16000 Hz"), (RATE, 500, "500 samples")])
def test_a_track_must_have_the_expected_rate_and_length(tmp_path: Path, rate: int, samples: int, words: str) -> None:
    path = good(tmp_path / "other.wav", rate=rate, samples=samples)
    with pytest.raises(DataError, match=rf"other\.wav has.*{words}"):
        read_track(path, RATE, SAMPLES)


def test_speech_is_resampled_and_mixed_down(tmp_path: Path) -> None:
    voice = utterance(120, 1.0, 16000, seed=0)
    soundfile.write(tmp_path / "stereo.wav", np.stack([voice, voice], axis=1), 16000)
    assert read_speech(tmp_path / "stereo.wav", 8000).shape == (8000,)


@pytest.mark.parametrize("promised", [0x7FFFF000, 0xFFFFFFFF])
def test_wav_from_a_pipe_promises_too_much_and_is_good(tmp_path: Path, promised: int) -> None:
    path = good(tmp_path / "piped.wav")
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", promised)
    path.write_bytes(content)
    assert read_track(path, RATE).size == SAMPLES


def test_the_length_is_known_without_decoding(tmp_path: Path) -> None:
    assert count_samples(good(tmp_path / "a.wav")) == SAMPLES
    with pytest.raises(DataError, match=r"b\.wav"):
        count_samples(tmp_path / "b.wav")


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind", sorted(set(BAD_FILES) - {"missing"}))
def test_a_folder_of_speakers_with_a_bad_file_is_refused_or_read_without_it(tmp_path: Path, kind: str) -> None:
    write_speakers(tmp_path, speakers=2, clips=2)
    write, words = BAD_FILES[kind]
    write(tmp_path / "speaker1" / "bad.wav")
    with pytest.raises(DataError, match=r"bad\.wav"):
        read_speaker_folder(tmp_path, RATE)
    skipped: list[DataError] = []
    corpus = read_speaker_folder(tmp_path, RATE, on_bad=skipped.append)
    assert [clip.name for clip in corpus.clips] == ["clip0", "clip1"] * 2
    assert len(skipped) == 1
    assert words in str(skipped[0])


def test_a_speaker_of_whom_nothing_is_left_is_skipped_by_name(tmp_path: Path) -> None:
    write_speakers(tmp_path, speakers=2, clips=1)
    (tmp_path / "quiet").mkdir()
    BAD_FILES["silent"][0](tmp_path / "quiet" / "pause.wav")
    skipped: list[DataError] = []
    assert read_speaker_folder(tmp_path, RATE, on_bad=skipped.append).people == ("speaker0", "speaker1")
    assert ["'quiet'" in str(error) for error in skipped] == [False, True]


def test_skipping_leaves_two_speakers_or_is_refused(tmp_path: Path) -> None:
    write_speakers(tmp_path, speakers=2, clips=1)
    (tmp_path / "speaker0" / "clip0.wav").write_text("hello")
    with pytest.raises(DataError, match="has 1 speakers"):
        read_speaker_folder(tmp_path, RATE, on_bad=lambda error: None)
