"""Mixtures in files, and the streams made of them."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from prunegraph.data.mixtures import MixtureSettings
from prunegraph.data.recorded import DynamicSampler, MixtureFiles, RecordedMixtures, SegmentSampler
from prunegraph.errors import DataError, InputError
from tests.data.bad_files import BAD_FILES, RATE, SAMPLES, good
from tests.data.speakers import utterance

COUNT = 5
EXACT = MixtureSettings(min_seconds=0.5, max_seconds=0.5)


def _write(folder: Path, number: int, *, noise: float = 0.0, known: bool = False) -> MixtureFiles:
    seconds = (1.2, 1.0, 0.8, 0.6, 0.2)[number % 5]
    rng = np.random.default_rng(number)
    sources = [0.4 * utterance(80 + 30 * number + 100 * i, seconds, RATE, seed=i) for i in range(2)]
    tracks = [sources[0] + sources[1] + noise * rng.normal(size=sources[0].size), *sources]
    paths = [folder / f"{track}_{number}.wav" for track in ("mix", "s1", "s2")]
    for path, samples in zip(paths, tracks, strict=True):
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    people = ("anna", f"guest{number}") if known else ()
    return MixtureFiles(name=f"m{number}", mixture=paths[0], sources=tuple(paths[1:]), people=people)


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedMixtures:
    return RecordedMixtures([_write(tmp_path, number) for number in range(COUNT)], RATE)


def test_files_are_read_as_they_are(tmp_path: Path) -> None:
    files = _write(tmp_path, 0, noise=0.1, known=True)
    mixture = RecordedMixtures([files], RATE)[0]
    expected = [soundfile.read(path, dtype="float32")[0] for path in files.tracks]
    np.testing.assert_array_equal(torch.cat([mixture.mixture[None], mixture.sources]).numpy(), np.stack(expected))
    assert (mixture.name, mixture.people) == ("m0", ("anna", "guest0"))
    assert not torch.allclose(mixture.mixture, mixture.sources.sum(0), atol=1e-2)


def test_without_a_mixture_the_sources_are_added(tmp_path: Path) -> None:
    files = _write(tmp_path, 0)
    mixture = RecordedMixtures([MixtureFiles(name="m", sources=files.sources)], RATE)[0]
    torch.testing.assert_close(mixture.mixture, mixture.sources.sum(0))


def test_they_are_a_sequence(recorded: RecordedMixtures) -> None:
    assert len(recorded) == COUNT
    assert [mixture.name for mixture in recorded] == [f"m{number}" for number in range(COUNT)]
    assert [mixture.name for mixture in recorded[1:3]] == ["m1", "m2"]
    assert recorded[-1].name == f"m{COUNT - 1}"


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind", [*BAD_FILES, "other_rate", "other_length"])
def test_mixtures_with_a_bad_file_are_refused_or_skipped(recorded: RecordedMixtures, kind: str) -> None:
    bad = recorded.files[2].sources[1]
    bad.unlink()
    if kind.startswith("other"):
        words = "16000 Hz" if kind == "other_rate" else "expected are"
        good(bad, rate=16000 if kind == "other_rate" else RATE, samples=SAMPLES)
    else:
        write, words = BAD_FILES[kind]
        write(bad)
    for refused in (recorded.usable, lambda: recorded[2], lambda: list(recorded)):
        with pytest.raises(DataError, match=r"s2_2\.wav"):
            refused()
    skipped: list[DataError] = []
    left = recorded.usable(skipped.append)
    assert [mixture.name for mixture in left] == ["m0", "m1", "m3", "m4"]
    assert [words in str(error) and "s2_2.wav" in str(error) for error in skipped] == [True]


def test_nothing_left_is_refused(recorded: RecordedMixtures) -> None:
    for files in recorded.files:
        files.sources[0].unlink()
    with pytest.raises(DataError, match="no mixtures"):
        recorded.usable(lambda error: None)


def test_segments_are_stretches_of_the_mixtures_each_once_in_an_epoch(recorded: RecordedMixtures) -> None:
    sampler = SegmentSampler(recorded, 0.5)
    epochs = [[sampler.item(3, epoch * len(sampler) + place) for place in range(len(sampler))] for epoch in range(3)]
    names = [[item.name for item in epoch] for epoch in epochs]
    assert {tuple(sorted(epoch)) for epoch in names} == {("m0", "m1", "m2", "m3")}  # m4 is too short
    assert len({tuple(epoch) for epoch in names}) > 1
    for item in epochs[0]:
        whole = recorded[int(item.name[1:])].sources
        assert item.sources.shape == (2, 4000)
        starts = [k for k in range(whole.shape[1] - 3999) if torch.equal(whole[0, k : k + 4000], item.sources[0])]
        assert any(torch.equal(whole[:, k : k + 4000], item.sources) for k in starts)


@pytest.mark.parametrize("kind", ["segments", "dynamic"])
def test_an_item_depends_on_the_seed_and_its_number_alone(recorded: RecordedMixtures, kind: str) -> None:
    make = (lambda: SegmentSampler(recorded, 0.5)) if kind == "segments" else (lambda: DynamicSampler(recorded, EXACT))
    whole = list(islice(make().batches(7, size=3), 4))
    rest = list(islice(make().batches(7, size=3, start=2), 2))
    for batch, again in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    mixture, sources = whole[1]
    assert (mixture.shape, sources.shape) == ((3, 1, 4000), (3, 2, 4000))
    assert torch.equal(sources[2], make().item(7, 5).sources)
    assert not torch.equal(sources[2], make().item(8, 5).sources)


def test_dynamic_mixing_brings_sources_of_different_mixtures_together(recorded: RecordedMixtures) -> None:
    items = [DynamicSampler(recorded, EXACT).item(0, index) for index in range(40)]
    pairs = [tuple(part.split("_")[1] for part in item.name.split("+")) for item in items]
    assert all(first != second for first, second in pairs)
    assert len(set(pairs)) > 8
    levels = torch.stack([10 * torch.log10(i.sources[0].square().mean() / i.sources[1].square().mean()) for i in items])
    assert levels.abs().max() <= 5.001
    assert levels.std() > 1
    torch.testing.assert_close(items[0].mixture, items[0].sources.sum(0))


def test_dynamic_mixing_never_mixes_a_person_with_herself(tmp_path: Path) -> None:
    files = [_write(tmp_path, number, known=True) for number in range(4)]
    people = [DynamicSampler(RecordedMixtures(files, RATE), EXACT).item(1, index).people for index in range(40)]
    assert all(first != second for first, second in people)
    assert any("anna" in pair for pair in people)


def test_dynamic_mixing_to_the_longer_source_pads_the_shorter(recorded: RecordedMixtures) -> None:
    settings = MixtureSettings(min_seconds=0.5, max_seconds=5, mode="max")
    items = [DynamicSampler(recorded, settings).item(0, index) for index in range(20)]
    ends = [bool(item.sources[:, -100:].any(dim=1).all()) for item in items]
    assert not all(ends)
    assert all(item.sources[:, -100:].any() for item in items)


@pytest.mark.parametrize("seconds", [2.0, 1.21])
def test_too_long_segments_are_refused(recorded: RecordedMixtures, seconds: float) -> None:
    with pytest.raises(DataError, match=f"None of 5 mixtures has {seconds} s"):
        SegmentSampler(recorded, seconds)


def test_what_makes_no_sense_is_refused(recorded: RecordedMixtures) -> None:
    with pytest.raises(InputError, match="no samples"):
        SegmentSampler(recorded, 0)
    with pytest.raises(InputError, match="no families"):
        DynamicSampler(recorded, MixtureSettings(pairs="same-family"))
    with pytest.raises(DataError, match="two people"):
        DynamicSampler(recorded[:1], EXACT)
    with pytest.raises(DataError, match="no mixtures"):
        RecordedMixtures([], RATE)
