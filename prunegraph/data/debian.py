"""A real-speech corpus made of seven Debian data packages: 9 voices of 8 people, about four hours.

The packages are fetched with ``apt-get download`` and unpacked with ``dpkg-deb -x``, as any user; nothing is installed.
"""

import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunegraph.data.corpus import Clip, Corpus, Voice, read_voice
from prunegraph.errors import DataError

TEST_PEOPLE = ("June Wallack", "Carlo Flora", "nl-m", "nl-v")
"""The people of the speaker-disjoint split who are never heard in training."""

_NOT_SPEECH = frozenset({"beep", "beeperr", "ascending-2tone", "descending-2tone", "tt-monkeys", "tt-weasels"})
_OTHER_SOURCE = "Where apt is absent, give a folder with one sub-folder of audio files per speaker instead."


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A Debian package with recorded speech.

    Attributes:
        name: package name, as apt knows it.
        sha256: checksum of the ``.deb`` file.
        voices: glob pattern of the recordings of each voice, within the unpacked package.
    """

    name: str
    sha256: str
    voices: tuple[tuple[str, Voice], ...]


def _fillets(language: str, sha256: str) -> Package:
    name = f"fillets-ng-data-{language}"
    credit = f"Fish Fillets NG, {{}} voice of the {language} recordings (Debian {name}, GPL-2)"
    voices = tuple(
        (
            f"usr/share/games/fillets-ng/sound/*/{language}/*-{role}-*.ogg",
            Voice(name=f"{language}-{role}", person=f"{language}-{role}", family=language, credit=credit.format(role)),
        )
        for role in ("m", "v")
    )
    return Package(name=name, sha256=sha256, voices=voices)


def _asterisk(language: str, folder: str, person: str, licence: str, sha256: str) -> Package:
    name = f"asterisk-core-sounds-{language}-g722"
    voice = Voice(name=language, person=person, family=language, credit=f"{person} (Debian {name}, {licence})")
    pattern = f"usr/share/asterisk/sounds/{folder}/**/*.g722"
    return Package(name=name, sha256=sha256, voices=((pattern, voice),))


PACKAGES = (
    _asterisk(
        *("en", "en_US_f_Allison", "Allison Smith", "CC-BY-SA-3.0"),
        "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
    ),
    _asterisk(
        *("es", "es_MX_f_Allison", "Allison Smith", "CC-BY-SA-3.0"),
        "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8",
    ),
    _asterisk(
        *("fr", "fr_CA_f_June", "June Wallack", "CC-BY-SA-3.0"),
        "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0",
    ),
    _asterisk(
        *("it", "it_IT_m_Carlo", "Carlo Flora", "CC-BY-3.0"),
        "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016",
    ),
    _asterisk(
        *("ru", "ru_RU_f_IvrvoiceRU", "IvrvoiceRU", "CC-BY-3.0"),
        "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
    ),
    _fillets("cs", "3ecef99b9456f1c80c9625c6f2418642b52d58e7167a46bad7a412db17991b14"),
    _fillets("nl", "afb4443fda9ab507dee578b75be857d121718a1cd6017a474f30e0eb13dc9d10"),
)


def default_cache() -> Path:
    """``$PRUNEGRAPH_CACHE`` or the user's cache folder, and in it ``corpus``."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PRUNEGRAPH_CACHE") or Path(home) / "prunegraph") / "corpus"


def load_debian_corpus(
    sample_rate: int,
    *,
    cache: Path | None = None,
    packages: tuple[Package, ...] = PACKAGES,
    progress: Callable[[str], None] = lambda message: None,
) -> Corpus:
    """Loads the corpus; downloads, unpacks and decodes what the cache does not have yet.

    Args:
        sample_rate: rate of the corpus in Hz.
        cache: folder for packages and decoded audio; ``default_cache()`` if none.
        packages: the packages to take.
        progress: called with one line before each step that takes time.

    Raises:
        DataError: apt is absent or fails, a package is not the expected one, or the disk is full.
    """
    cache = cache or default_cache()
    clips: list[Clip] = []
    for package in packages:
        for pattern, voice in package.voices:
            decoded = cache / f"decoded-{sample_rate}" / f"{package.sha256[:12]}-{voice.name}.npz"
            if not decoded.exists():
                progress(f"decoding {voice.name} of {package.name}")
                files = [path for path in unpack(package, cache, progress).glob(pattern) if _is_speech(path)]
                _write_clips(decoded, read_voice(voice, files, sample_rate))
            clips.extend(_read_clips(decoded, voice))
    return Corpus(sample_rate=sample_rate, clips=tuple(clips))


def unpack(package: Package, cache: Path, progress: Callable[[str], None] = lambda message: None) -> Path:
    """Downloads and unpacks a package unless that was done before; returns the folder."""
    folder = cache / "unpacked" / package.sha256[:12]
    if not folder.exists():
        deb = _download(package, cache, progress)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _run("dpkg-deb", "-x", str(deb), str(partial), cwd=cache)
        partial.rename(folder)
    return folder


def _download(package: Package, cache: Path, progress: Callable[[str], None]) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    present = sorted(cache.glob(f"{package.name}_*.deb"))
    if not present:
        progress(f"downloading {package.name}")
        _run("apt-get", "download", package.name, cwd=cache)
        present = sorted(cache.glob(f"{package.name}_*.deb"))
    for deb in present:
        if hashlib.sha256(deb.read_bytes()).hexdigest() == package.sha256:
            return deb
    raise DataError(
        f"No file among {[str(path) for path in present]} has the sha256 {package.sha256} of {package.name}: "
        f"delete them and try again, or take the version with this checksum from snapshot.debian.org. {_OTHER_SOURCE}"
    )


def _run(*command: str, cwd: Path) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(f"{command[0]} is not on this machine, so the corpus cannot be fetched. {_OTHER_SOURCE}")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(
            f"`{' '.join(command)}` failed: {done.stderr.strip()} If the package lists are old or empty, run "
            f"`apt-get update` first. {_OTHER_SOURCE}"
        )


def _is_speech(path: Path) -> bool:
    return not path.is_symlink() and path.parent.name != "silence" and path.stem not in _NOT_SPEECH


def _write_clips(path: Path, clips: tuple[Clip, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            samples=np.concatenate([clip.samples for clip in clips]),
            ends=np.cumsum([clip.samples.size for clip in clips]),
            names=np.array([clip.name for clip in clips]),
        )
    partial.replace(path)


def _read_clips(path: Path, voice: Voice) -> tuple[Clip, ...]:
    try:
        with path.open("rb") as file, np.load(file) as stored:
            parts = np.split(stored["samples"], stored["ends"][:-1])
            return tuple(
                Clip(voice=voice, name=str(name), samples=part)
                for name, part in zip(stored["names"], parts, strict=True)
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); delete it, it will be made again.") from error
