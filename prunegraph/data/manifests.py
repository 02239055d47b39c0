"""JSON manifests: the lists of files that the recipes of look2hear and of asteroid write and read.

Both write a folder for each part of a data set with one JSON file for the mixtures (``mix.json``, ``mix_clean.json``,
``mix_both.json``) and one for each source (``s1.json``, ``s2.json``). Each is a list of ``[path, samples]``, and the
entries of the same place belong together.
"""

import json
from pathlib import Path
from typing import Any

from prunegraph.data.recorded import MixtureFiles, RecordedMixtures
from prunegraph.errors import DataError


def read_manifests(folder: Path, sample_rate: int, *, mixture: str | None = None) -> RecordedMixtures:
    """Reads the manifests of one part of a data set; the audio is read when it is needed.

    Args:
        folder: holds ``s1.json``, ``s2.json`` and so on, and the manifest of the mixtures. Relative paths in them are
            relative to the working directory, as in the recipes.
        sample_rate: of the audio in Hz, 8000 or 16000 in the recipes.
        mixture: name of the manifest of the mixtures without its suffix, such as ``mix_both``; by default the only one
            that begins with ``mix``. Where there is none, a mixture is the sum of its sources.

    Raises:
        DataError: a manifest is missing, is no such list, or they do not belong together; names file and entry.
    """
    sources = _source_manifests(folder)
    mixtures = _mixture_manifest(folder, mixture)
    lists = {path: _read(path) for path in ([mixtures] if mixtures else []) + sources}
    _check_lengths(lists)
    rows = zip(*lists.values(), strict=True)
    return RecordedMixtures(
        (_files(row, number, has_mixture=mixtures is not None, folder=folder) for number, row in enumerate(rows)),
        sample_rate,
    )


def _source_manifests(folder: Path) -> list[Path]:
    found: list[Path] = []
    while (path := folder / f"s{len(found) + 1}.json").is_file():
        found.append(path)
    if len(found) < 2:
        raise DataError(
            f"{folder} has no {path.name}; give the folder of one part of a data set, with s1.json, s2.json and the "
            "manifest of the mixtures."
        )
    return found


def _mixture_manifest(folder: Path, name: str | None) -> Path | None:
    found = sorted(folder.glob("mix*.json"))
    if name is not None:
        found = [path for path in found if path.stem == name.removesuffix(".json")] or [folder / f"{name}.json"]
    if len(found) > 1:
        raise DataError(f"{folder} has {', '.join(path.name for path in found)}: say which mixtures to take.")
    return found[0] if found else None


def _read(path: Path) -> list[tuple[Path, int]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}; write the manifests again.") from error
    if not isinstance(entries, list):
        raise DataError(f"{path} holds {type(entries).__name__}; expected a list of [path, samples].")
    return [_entry(path, number, entry) for number, entry in enumerate(entries)]


def _entry(path: Path, number: int, entry: Any) -> tuple[Path, int]:
    match entry:
        case [str(name), int(samples)]:
            return Path(name), samples
    raise DataError(f"{path}: entry {number} is {json.dumps(entry)[:80]}; expected [path, samples].")


def _check_lengths(lists: dict[Path, list[tuple[Path, int]]]) -> None:
    (first, expected), *others = lists.items()
    for path, entries in others:
        if len(entries) != len(expected):
            raise DataError(
                f"{path} has {len(entries)} entries and {first} has {len(expected)}: an entry is missing in one of "
                "them; write the manifests again."
            )


def _files(row: tuple[tuple[Path, int], ...], number: int, *, has_mixture: bool, folder: Path) -> MixtureFiles:
    lengths = {samples for _, samples in row}
    if len(lengths) > 1:
        listed = ", ".join(f"{path} ({samples})" for path, samples in row)
        raise DataError(
            f"{folder}: the tracks of entry {number} differ in samples: {listed}; write the manifests again."
        )
    paths = tuple(path for path, _ in row)
    return MixtureFiles(
        name=paths[0].stem,
        mixture=paths[0] if has_mixture else None,
        sources=paths[1:] if has_mixture else paths,
        samples=lengths.pop(),
    )
