"""Speech in parts: what is learned from is never tested on."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from prunegraph.data.corpus import read_speaker_folder
from prunegraph.data.speech import CorpusSpeech, Speech, librimix_speech, manifest_speech
from prunegraph.errors import DataError
from tests.data.data_sets import write_librimix, write_manifests
from tests.data.speakers import write_speakers

SECONDS, RATE = 0.6, 8000

OPENED: dict[str, Callable[[Path], Speech]] = {
    "corpus": lambda root: CorpusSpeech(
        read_speaker_folder(write_speakers(root / "speakers", speakers=2, clips=30, seconds=2.2), RATE)
    ),
    "librimix": lambda root: librimix_speech(write_librimix(root), RATE),
    "manifests": lambda root: manifest_speech(write_manifests(root), RATE, "mix_clean"),
}


@pytest.fixture(params=OPENED.values(), ids=OPENED.keys())
def speech(request: pytest.FixtureRequest, tmp_path: Path) -> Speech:
    return request.param(tmp_path)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_streams_are_of_one_length_and_a_seed_decides_them(speech: Speech, part) -> None:
    first, again, other = (list(islice(speech.stream(part, SECONDS).batches(seed, 2), 3)) for seed in (0, 0, 1))
    for mixture, sources in first:
        assert mixture.shape == (2, 1, round(SECONDS * RATE))
        assert sources.shape == (2, 2, round(SECONDS * RATE))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


def test_tests_are_the_same_for_a_seed_and_no_more_than_there_are(speech: Speech) -> None:
    assert speech.sample_rate == RATE
    two, again = speech.test(0, 2), speech.test(0, 2)
    assert len(two) == 2
    assert all(torch.equal(a.mixture, b.mixture) for a, b in zip(two, again, strict=True))
    assert len(speech.test(0, 3)) == 3


@pytest.mark.parametrize("kind", ["librimix", "manifests"])
def test_the_parts_are_those_of_the_data_set(kind: str, tmp_path: Path) -> None:
    speech = OPENED[kind](tmp_path)
    heard = {part: set(_heard(speech, part)) for part in ("train", "validation")}
    tested = {_total(item.sources) for item in speech.test(0, 10)}
    assert len(tested) == 3
    assert not heard["train"] & heard["validation"]
    assert not (heard["train"] | heard["validation"]) & tested


def _heard(speech: Speech, part) -> list[float]:
    return [_total(sources) for _, sources in islice(speech.stream(part, 1.0).batches(0, 1), 6)]


def _total(sources: torch.Tensor) -> float:
    """Of whole mixtures, which tells them apart."""
    return float(sources.double().abs().sum())


def test_a_fingerprint_tells_of_a_file_that_went(tmp_path: Path) -> None:
    write_librimix(tmp_path)
    before = librimix_speech(tmp_path, RATE).fingerprint()
    assert before == librimix_speech(tmp_path, RATE).fingerprint()
    next(tmp_path.glob("Libri2Mix/wav8k/min/test/mix_clean/*.wav")).unlink()
    assert before != librimix_speech(tmp_path, RATE).fingerprint()


@pytest.mark.parametrize("kind", ["librimix", "manifests"])
def test_a_part_that_is_missing_is_named_when_it_is_asked_for(kind: str, tmp_path: Path) -> None:
    speech = OPENED[kind](tmp_path)
    folder = {"librimix": "Libri2Mix/wav8k/min/dev", "manifests": "cv"}[kind]
    (tmp_path / folder).rename(tmp_path / "elsewhere")
    assert speech.test(0, 1)
    with pytest.raises(DataError, match=folder.rpartition("/")[2]):
        speech.stream("validation", SECONDS)
