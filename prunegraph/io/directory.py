"""A directory of files that appears, or is replaced, as a whole."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from prunegraph.errors import InputError


def write_directory(target: Path, files: Mapping[str, bytes], marker: str, kind: str) -> None:
    """Writes the files beside the target under a temporary name, then gives the directory its name.

    A process that is killed leaves the old directory or none, and a hidden one with a name ending in ``.partial`` or
    ``.old`` beside it.

    Args:
        target: the directory; may exist if it was written by this function for the same kind.
        files: name -> content.
        marker: name of the JSON file whose "format" tells the kind.
        kind: what the marker must say in a directory that may be replaced.

    Raises:
        InputError: something else stands in the target's place.
        OSError: the disk is full, or permission is missing; nothing is left behind.
    """
    target = target.resolve()
    check_replaceable(target, frozenset(files), marker, kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = _sibling(target, "partial")
    staging.mkdir()
    try:
        for name, content in files.items():
            _write_synced(staging / name, content)
        _sync(staging)
        _put_in_place(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def check_replaceable(target: Path, names: frozenset[str], marker: str, kind: str) -> None:
    """Raises `InputError` unless the target is absent, empty, or a directory of exactly this kind."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise InputError(f"{target} exists and is no directory; give another path")
    found = sorted(path.name for path in target.iterdir())
    foreign = [name for name in found if name not in names]
    if foreign:
        raise InputError(f"{target} holds {foreign[0]}, which prunegraph did not write; give another path")
    if found and _kind_of(target / marker) != kind:
        raise InputError(f"{target / marker} was not written by prunegraph, or is damaged; give another path")


def _kind_of(marker: Path) -> object:
    try:
        document = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return None
    return document.get("format") if isinstance(document, dict) else None


def _put_in_place(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
    else:
        old = _sibling(target, "old")
        target.rename(old)
        try:
            staging.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old)
    _sync(target.parent)


def _sibling(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.{suffix}")


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Makes names survive a loss of power; a system that cannot sync directories has nothing to do."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)
