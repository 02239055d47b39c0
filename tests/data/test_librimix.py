"""Libri2Mix as its scripts lay it out."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from prunegraph.data.librimix import read_librimix
from prunegraph.data.mixtures import MixtureSettings
from prunegraph.data.recorded import DynamicSampler
from prunegraph.errors import DataError, InputError
from tests.data.bad_files import good

NAMES = ("1034-121119-0049_1188-133604-0005", "61-70968-0001_1034-121119-0002")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for rate, folder in ((8000, "wav8k"), (16000, "wav16k")):
        for mode, seconds in (("min", 1), ("max", 2)):
            for number, track in enumerate(("mix_clean", "mix_both", "s1", "s2")):
                part = tmp_path / "Libri2Mix" / folder / mode / "test" / track
                part.mkdir(parents=True)
                for name in NAMES:
                    good(part / f"{name}.wav", pitch=80 + 50 * number, rate=rate, samples=seconds * rate)
    return tmp_path


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize(("mode", "seconds"), [("min", 1), ("max", 2)])
@pytest.mark.parametrize(("task", "folder"), [("sep_clean", "mix_clean"), ("sep_noisy", "mix_both")])
def test_rate_mode_and_task_choose_the_files(
    root: Path, rate: int, mode: str, seconds: int, task: str, folder: str
) -> None:
    found = read_librimix(root, "test", rate, mode=mode, task=task)
    assert [item.name for item in found] == sorted(NAMES)
    assert found[0].sources.shape == (2, seconds * rate)
    place = root / "Libri2Mix" / ("wav8k" if rate == 8000 else "wav16k") / mode / "test"
    for number, track in enumerate((folder, "s1", "s2")):
        read = (found[1].mixture, *found[1].sources)[number]
        np.testing.assert_array_equal(read, soundfile.read(place / track / f"{NAMES[1]}.wav", dtype="float32")[0])


def test_the_speakers_are_known_by_the_names_of_the_files(root: Path) -> None:
    found = read_librimix(root, "test")
    assert [item.people for item in found] == [("1034", "1188"), ("61", "1034")]
    sampler = DynamicSampler(found, MixtureSettings(min_seconds=0.5, max_seconds=1.0))
    assert all(len(set(sampler.item(0, index).people)) == 2 for index in range(20))


def test_a_missing_source_is_named(root: Path) -> None:
    (root / "Libri2Mix" / "wav8k" / "min" / "test" / "s2" / f"{NAMES[0]}.wav").unlink()
    skipped: list[DataError] = []
    assert len(read_librimix(root, "test").usable(skipped.append)) == 1
    assert f"s2/{NAMES[0]}.wav" in str(skipped[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subset": "dev"}, DataError, "dev.mix_clean has no WAV files"),
        ({"subset": "test", "sample_rate": 44100}, InputError, "44100.*8000 and 16000"),
        ({"subset": "test", "mode": "mean"}, InputError, "mean"),
        ({"subset": "test", "task": "enh_both"}, InputError, "enh_both"),
    ],
)
def test_what_is_not_there_is_refused(root: Path, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_librimix(root, **options)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no folder Libri2Mix"):
        read_librimix(tmp_path, "test")
