"""Manifests as the recipes of look2hear and asteroid write them."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from prunegraph.data.manifests import read_manifests
from prunegraph.errors import DataError
from tests.data.bad_files import RATE, SAMPLES, good

LOOK2HEAR = ("mix", "s1", "s2")
ASTEROID_WHAM = ("mix_both", "mix_clean", "mix_single", "s1", "s2", "noise")


def _write(folder: Path, tracks: tuple[str, ...], count: int = 3, samples: int = SAMPLES) -> Path:
    for number, track in enumerate(tracks):
        (folder / "wav" / track).mkdir(parents=True)
        paths = [folder / "wav" / track / f"utt{i}.wav" for i in range(count)]
        for i, path in enumerate(paths):
            good(path, pitch=80 + 40 * number + 10 * i, samples=samples)
        (folder / f"{track}.json").write_text(json.dumps([[str(path), samples] for path in paths]))
    return folder


def _edit(path: Path, change) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(
    ("tracks", "mixture", "read"),
    [
        (LOOK2HEAR, None, "mix"),
        (("mix_clean", "s1", "s2"), None, "mix_clean"),
        (ASTEROID_WHAM, "mix_both", "mix_both"),
        (ASTEROID_WHAM, "mix_clean.json", "mix_clean"),
        (("mix", "s1", "s2", "s3"), None, "mix"),
    ],
)
def test_entries_of_the_same_place_belong_together(
    tmp_path: Path, tracks: tuple[str, ...], mixture: str | None, read: str
) -> None:
    found = read_manifests(_write(tmp_path, tracks), RATE, mixture=mixture)
    sources = [track for track in tracks if track.startswith("s")]
    assert [item.name for item in found] == ["utt0", "utt1", "utt2"]
    for i, item in enumerate(found):
        paths = [tmp_path / "wav" / track / f"utt{i}.wav" for track in (read, *sources)]
        expected = np.stack([soundfile.read(path, dtype="float32")[0] for path in paths])
        np.testing.assert_array_equal(item.mixture, expected[0])
        np.testing.assert_array_equal(item.sources, expected[1:])


def test_without_mixtures_the_sources_are_added(tmp_path: Path) -> None:
    item = read_manifests(_write(tmp_path, ("s1", "s2")), RATE)[1]
    np.testing.assert_allclose(item.mixture, item.sources.sum(0))


def test_relative_paths_start_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, LOOK2HEAR)
    for track in LOOK2HEAR:
        _edit(tmp_path / f"{track}.json", lambda entries: [[str(Path(p).relative_to(tmp_path)), n] for p, n in entries])
    monkeypatch.chdir(tmp_path)
    assert read_manifests(tmp_path, RATE)[0].sources.shape == (2, SAMPLES)


def test_a_file_that_is_shorter_than_its_entry_says_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, LOOK2HEAR)
    good(tmp_path / "wav" / "s2" / "utt1.wav", samples=SAMPLES - 5)
    found = read_manifests(tmp_path, RATE)
    with pytest.raises(DataError, match=rf"utt1\.wav has {SAMPLES - 5} samples, expected are {SAMPLES}"):
        found[1]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("s2", lambda entries: entries[:-1], r"s2\.json has 2 entries and .*mix\.json has 3"),
        ("s1", lambda entries: {"files": entries}, r"s1\.json holds dict"),
        ("s1", lambda entries: [entries[0], entries[1][0], entries[2]], r"s1\.json: entry 1 is .*expected \[path"),
        ("s1", lambda entries: [*entries[:2], [entries[2][0], 1.5]], r"s1\.json: entry 2"),
        ("s1", lambda entries: [*entries[:2], [entries[2][0], 7]], r"entry 2 differ in samples: .*utt2\.wav \(7\)"),
        ("s1", lambda entries: [*entries[:2], None], r"s1\.json: entry 2 is null"),
    ],
)
def test_manifests_that_do_not_fit_are_refused(tmp_path: Path, name: str, change, message: str) -> None:
    _edit(_write(tmp_path, LOOK2HEAR) / f"{name}.json", change)
    with pytest.raises(DataError, match=message):
        read_manifests(tmp_path, RATE)


@pytest.mark.parametrize(
    ("tracks", "mixture", "message"),
    [
        ((), None, r"has no s1\.json"),
        (("mix", "s1"), None, r"has no s2\.json"),
        (ASTEROID_WHAM, None, r"has mix_both\.json, mix_clean\.json, mix_single\.json: say which"),
        (LOOK2HEAR, "mix_both", r"mix_both\.json cannot be read"),
    ],
)
def test_missing_manifests_are_named(
    tmp_path: Path, tracks: tuple[str, ...], mixture: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_manifests(_write(tmp_path, tracks), RATE, mixture=mixture)


def test_a_cut_manifest_is_named(tmp_path: Path) -> None:
    (_write(tmp_path, LOOK2HEAR) / "s1.json").write_text('[["a.wav", 3')
    with pytest.raises(DataError, match=r"s1\.json is no JSON"):
        read_manifests(tmp_path, RATE)
