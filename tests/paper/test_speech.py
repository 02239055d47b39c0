"""The mixtures that the protocol runs on."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.paper.speech import corpus_speech, recorded_speech
from prunegraph.data.corpus import Split, read_speaker_folder
from prunegraph.errors import DataError
from tests.data.speakers import write_speakers
from tests.paper.networks import RATE, write_libri2mix, write_manifests


@pytest.mark.parametrize(
    ("data", "parts"), [("lrs2", ("tr", "cv", "tt")), ("echoset", ("train", "val", "test"))], ids=["lrs2", "echoset"]
)
def test_manifests_are_read(tmp_path: Path, data: str, parts: tuple[str, str, str]) -> None:
    speech = recorded_speech(data, write_manifests(tmp_path, parts), seconds=1.0)
    assert (speech.sample_rate, speech.epoch, len(speech.validation), len(speech.test)) == (RATE, 3, 3, 3)
    mixture, sources = next(speech.train.batches(0, 2))
    assert (mixture.shape, sources.shape) == ((2, 1, RATE), (2, 2, RATE))
    assert [item.mixture.numel() for item in speech.test] == [round(1.1 * RATE)] * 3
    files = [file.tracks[0].parent.parent.name for file in speech.test.files]  # type: ignore[attr-defined]
    assert files == [parts[2]] * 3


def test_libri2mix_is_read(tmp_path: Path) -> None:
    speech = recorded_speech("libri2mix", write_libri2mix(tmp_path), seconds=1.0)
    assert (speech.epoch, len(speech.validation), len(speech.test)) == (2, 2, 2)
    assert {item.people for item in speech.test} == {("10", "20"), ("11", "21")}
    assert next(speech.train.batches(0, 1))[0].shape == (1, 1, RATE)


def test_validation_has_each_mixture_once_and_always_the_same(tmp_path: Path) -> None:
    validation = recorded_speech("lrs2", write_manifests(tmp_path), seconds=1.0).validation
    first, again = list(validation), list(validation)
    assert len(first) == 3
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert len({float(sources.sum()) for _, sources in first}) == 3
    assert torch.equal(validation[-1][0], first[2][0])
    assert len(validation[1:]) == 2


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder val or cv"):
        recorded_speech("lrs2", write_manifests(tmp_path, ("tr", "dev", "tt")), seconds=1.0)


@pytest.mark.parametrize(("epoch", "expected"), [(None, 9), (5, 5)])
def test_an_epoch_of_the_corpus_has_each_utterance_once_on_average(
    tmp_path: Path, epoch: int | None, expected: int
) -> None:
    corpus = read_speaker_folder(write_speakers(tmp_path, speakers=3, clips=6, seconds=2.2), 8000)
    speech = corpus_speech(Split(train=corpus, val=corpus, test=corpus), 2.0, epoch=epoch, test=3)
    assert (speech.sample_rate, speech.epoch, len(speech.test)) == (8000, expected, 3)
    assert all(mixture.shape == (4, 1, 16000) for mixture, _ in islice(speech.train.batches(0, 4), 2))
