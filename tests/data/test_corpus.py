from pathlib import Path

import numpy as np
import pytest
import soundfile

from prunegraph.data.corpus import (
    Clip,
    Corpus,
    Split,
    Voice,
    read_speaker_folder,
    split_by_speaker,
    split_by_utterance,
    write_speaker_folder,
)
from prunegraph.errors import DataError
from tests.data.speakers import utterance, write_speakers


def _corpus(people: int = 4, prompts: int = 200) -> Corpus:
    voices = [Voice(name=f"voice{i}", person=f"person{i % people}", family=f"f{i % 2}") for i in range(people + 1)]
    clips = [
        Clip(voice=voice, name=f"prompt{j}", samples=np.zeros(8, np.int16)) for voice in voices for j in range(prompts)
    ]
    return Corpus(sample_rate=8000, clips=tuple(clips))


def _parts(split: Split) -> tuple[Corpus, Corpus, Corpus]:
    return split.train, split.val, split.test


def test_a_folder_of_speakers_is_read(tmp_path: Path) -> None:
    corpus = read_speaker_folder(write_speakers(tmp_path, speakers=3, clips=2, sample_rate=16000), 8000)
    assert corpus.people == ("speaker0", "speaker1", "speaker2")
    assert [clip.name for clip in corpus.clips] == ["clip0", "clip1"] * 3
    assert corpus.seconds == pytest.approx(6 * 1.2, rel=0.05)


def test_samples_survive_the_way_into_the_corpus(tmp_path: Path) -> None:
    corpus = read_speaker_folder(write_speakers(tmp_path, speakers=2, clips=1), 8000)
    spoken = utterance(90, 1.2, 8000, seed=0)
    stored = corpus.clips[0].samples / 2**15
    lag = np.correlate(spoken, stored, "valid").argmax()
    np.testing.assert_allclose(stored, spoken[lag : lag + stored.size], atol=1e-3)


def test_short_clips_links_and_other_files_are_left_out(tmp_path: Path) -> None:
    write_speakers(tmp_path, speakers=2, clips=1)
    soundfile.write(tmp_path / "speaker0" / "short.wav", utterance(90, 0.3, 8000, seed=0), 8000)
    (tmp_path / "speaker0" / "again.wav").symlink_to(tmp_path / "speaker0" / "clip0.wav")
    (tmp_path / "speaker0" / "notes.txt").write_text("hello")
    (tmp_path / "nobody").mkdir()
    assert [clip.name for clip in read_speaker_folder(tmp_path, 8000).clips] == ["clip0", "clip0"]


@pytest.mark.parametrize("speakers", [0, 1])
def test_fewer_than_two_speakers_are_refused(tmp_path: Path, speakers: int) -> None:
    (tmp_path / "folder").mkdir()
    write_speakers(tmp_path / "folder", speakers=speakers, clips=1)
    with pytest.raises(DataError, match=f"has {speakers} speakers.*one sub-folder"):
        read_speaker_folder(tmp_path / "folder", 8000)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        read_speaker_folder(tmp_path / "nowhere", 8000)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    write_speakers(tmp_path, speakers=2, clips=1)
    (tmp_path / "speaker1" / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"broken\.wav"):
        read_speaker_folder(tmp_path, 8000)


def test_a_silent_speaker_is_named(tmp_path: Path) -> None:
    write_speakers(tmp_path, speakers=2, clips=1)
    (tmp_path / "quiet").mkdir()
    soundfile.write(tmp_path / "quiet" / "pause.wav", np.zeros(16000), 8000)
    with pytest.raises(DataError, match=r"quiet.pause\.wav is silent"):
        read_speaker_folder(tmp_path, 8000)


def test_utterance_split_shares_no_prompt_and_loses_no_clip() -> None:
    corpus = _corpus()
    parts = _parts(split_by_utterance(corpus))
    prompts = [{clip.name for clip in part.clips} for part in parts]
    assert sum(len(part.clips) for part in parts) == len(corpus.clips)
    assert set.intersection(*prompts[:2]) | set.intersection(*prompts[1:]) | set.intersection(*prompts[::2]) == set()
    assert [part.people for part in parts] == [corpus.people] * 3
    assert len(prompts[0]) == pytest.approx(160, abs=20)


def test_the_utterance_split_never_changes() -> None:
    """The committed weights were trained on this split; another hash would leak tests into their training."""
    test = split_by_utterance(_corpus(people=1, prompts=40)).test
    assert sorted({clip.name for clip in test.clips}) == ["prompt19", "prompt29", "prompt4", "prompt9"]


def test_speaker_split_shares_no_person_and_no_utterance() -> None:
    corpus = _corpus()
    split = split_by_speaker(corpus, ("person1", "person3"))
    assert split.test.people == ("person1", "person3")
    assert split.train.people == split.val.people == ("person0", "person2")
    assert sum(len(part.clips) for part in _parts(split)) == len(corpus.clips)
    assert not set(split.train.clips) & set(split.val.clips)


@pytest.mark.parametrize("held_out", [("nobody",), ("person0", "person1", "person2", "person3")])
def test_impossible_speaker_splits_are_refused(held_out: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="hold out"):
        split_by_speaker(_corpus(), held_out)


def test_credits_name_each_voice_once() -> None:
    clip = Clip(voice=Voice(name="a", person="a", family="a", credit="A. B."), name="x", samples=np.zeros(8, np.int16))
    assert Corpus(sample_rate=8000, clips=(clip, clip, *_corpus().clips)).credits == ("A. B.",)


def test_a_written_corpus_is_read_back_and_split_alike(tmp_path: Path) -> None:
    voices = [Voice(name=f"voice{i}", person=f"person {i % 2}", family="f") for i in range(3)]
    clips = [
        Clip(voice=voice, name=name, samples=(2**14 * utterance(90 + 50 * i, 0.7, 8000, seed=j)).astype(np.int16))
        for i, voice in enumerate(voices)
        for j, name in enumerate(("one", "two", "two"))
    ]
    corpus = Corpus(sample_rate=8000, clips=tuple(clips))
    write_speaker_folder(corpus, tmp_path / "speakers")
    again = read_speaker_folder(tmp_path / "speakers", 8000)
    assert again.people == corpus.people
    assert sorted((c.voice.person, c.name) for c in again.clips) == sorted((c.voice.person, c.name) for c in clips)
    stored = next(c.samples for c in again.clips if (c.voice.person, c.name) == ("person 1", "one")) / 2**15
    spoken = clips[3].samples / 2**15
    lag = np.correlate(spoken, stored, "valid").argmax()
    np.testing.assert_allclose(stored, spoken[lag : lag + stored.size], atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["speakers"]


def test_an_existing_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(DataError, match="exists already"):
        write_speaker_folder(_corpus(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
