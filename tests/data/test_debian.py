"""The corpus of Debian packages, with stand-ins for apt-get and dpkg-deb: a package is a tar file here."""

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from prunegraph.data.corpus import Voice
from prunegraph.data.debian import PACKAGES, TEST_PEOPLE, Package, default_cache, load_debian_corpus
from prunegraph.errors import DataError
from tests.data.speakers import write_speakers

PATTERN = "usr/share/sounds/{}/**/*.wav"


@pytest.fixture
def package(tmp_path: Path) -> Package:
    sounds = tmp_path / "content" / "usr" / "share" / "sounds"
    write_speakers(sounds, speakers=2, clips=2)
    (sounds / "speaker0" / "silence").mkdir()
    shutil.copy(sounds / "speaker0" / "clip0.wav", sounds / "speaker0" / "silence" / "1.wav")
    archive = tmp_path / "mirror.deb"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "content" / "usr", "usr")
    voices = tuple((PATTERN.format(n), Voice(name=n, person=n, family=n, credit=n)) for n in ("speaker0", "speaker1"))
    return Package(name="voices", sha256=hashlib.sha256(archive.read_bytes()).hexdigest(), voices=voices)


def _install(folder: Path, command: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / command).write_text(f"#!/bin/sh\n{script}\n")
    (folder / command).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that stands before all others."""
    tools = tmp_path / "bin"
    _install(tools, "apt-get", f'[ "$1 $2" = "download voices" ] && cp {tmp_path}/mirror.deb voices_1.0_all.deb')
    _install(tools, "dpkg-deb", '[ "$1" = -x ] && tar -xf "$2" -C "$3"')
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tools


def test_packages_are_fetched_unpacked_and_decoded(tmp_path: Path, package: Package, tools: Path) -> None:
    steps: list[str] = []
    corpus = load_debian_corpus(8000, cache=tmp_path / "cache", packages=(package,), progress=steps.append)
    assert corpus.people == ("speaker0", "speaker1")
    assert [clip.name for clip in corpus.clips] == ["clip0", "clip1"] * 2
    assert [step.split()[0] for step in steps] == ["decoding", "downloading", "decoding"]
    assert tools.is_dir()


def test_what_is_there_is_not_fetched_again(
    tmp_path: Path, package: Package, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_debian_corpus(8000, cache=tmp_path / "cache", packages=(package,))
    shutil.rmtree(tools)
    monkeypatch.setenv("PATH", "")
    second = load_debian_corpus(8000, cache=tmp_path / "cache", packages=(package,))
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(first.clips, second.clips, strict=True))


def test_without_apt_the_error_says_how_to_give_audio(
    tmp_path: Path, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"apt-get is not on this machine.*one sub-folder of audio files per speaker"):
        load_debian_corpus(8000, cache=tmp_path / "cache", packages=(package,))


def test_what_apt_says_is_passed_on(tmp_path: Path, package: Package, tools: Path) -> None:
    _install(tools, "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    with pytest.raises(DataError, match=r"Unable to locate package.*apt-get update"):
        load_debian_corpus(8000, cache=tmp_path / "cache", packages=(package,))


def test_another_package_is_refused(tmp_path: Path, package: Package, tools: Path) -> None:
    _install(tools, "apt-get", "echo other > voices_1.1_all.deb")
    with pytest.raises(DataError, match=r"voices_1\.1_all\.deb.*sha256"):
        load_debian_corpus(8000, cache=tmp_path / "cache", packages=(package,))


def test_a_cut_cache_file_is_named(tmp_path: Path, package: Package, tools: Path) -> None:
    load_debian_corpus(8000, cache=tmp_path / "cache", packages=(package,))
    decoded = next((tmp_path / "cache" / "decoded-8000").glob("*.npz"))
    decoded.write_bytes(decoded.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"{decoded.name}.*delete it"):
        load_debian_corpus(8000, cache=tmp_path / "cache", packages=(package,))
    assert tools.is_dir()


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEGRAPH_CACHE", "/elsewhere")
    assert default_cache() == Path("/elsewhere/corpus")


def test_nine_voices_of_eight_credited_people() -> None:
    voices = [voice for package in PACKAGES for _, voice in package.voices]
    assert len({voice.name for voice in voices}) == len(voices) == 9
    assert len({voice.person for voice in voices}) == 8
    assert {voice.person for voice in voices} >= set(TEST_PEOPLE)
    assert all(package.name in voice.credit for package in PACKAGES for _, voice in package.voices)
