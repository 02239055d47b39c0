"""The folder of a study: its conditions and what is finished; a process killed at any moment leaves it whole."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar
from uuid import uuid4

from prunegraph.errors import FileFormatError, InputError
from prunegraph.leaderboard.study import Cell

Kind: TypeAlias = Literal["qualities", "timings"]
Found = TypeVar("Found")
FORMAT = "prunegraph.leaderboard/1"
CONDITIONS = "study.json"


class Store:
    """What is finished: one file for each quality and timing of a cell, beside ``study.json``.

    Args:
        folder: made if need be; either empty, or that of the same study, of which more cells may be asked for.
        conditions: all that decides the results, by name. Names that an earlier run did not know are added.
        code: criterion -> checksum of its source. Cells that other code made are not found.

    Raises:
        InputError: the folder holds something else, or results under other conditions; names what differs.
        FileFormatError: a file of the folder is damaged.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, str | int | float], code: Mapping[str, str]) -> None:
        self.folder, self._code = folder, code
        file = folder / CONDITIONS
        earlier = _read(file).get("conditions", {}) if file.exists() else {}
        if not file.exists() and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} exists already and holds no study; give the name of a new folder")
        differing = [
            f"{name} was {earlier[name]} and is {conditions[name]} now"
            for name in conditions
            if name in earlier and earlier[name] != conditions[name]
        ]
        if differing:
            raise InputError(
                f"{folder} holds results under other conditions: {'; '.join(differing)}. Repeat those, or give a new "
                "folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({"format": FORMAT, "conditions": {**earlier, **conditions}}, indent=2))

    def find(self, kind: Kind, cell: Cell, parse: Callable[[Mapping[str, Any]], Found]) -> Found | None:
        """What was kept of a cell; None as well if its criterion had another source then.

        Raises:
            FileFormatError: the file is damaged.
        """
        file = self._file(kind, cell)
        if not file.exists():
            return None
        document = _read(file)
        try:
            found = parse(document["found"])
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(file, error) from error
        return found if document.get("code") == self._code.get(cell.criterion) else None

    def keep(self, kind: Kind, cell: Cell, found: Mapping[str, Any]) -> None:
        """Keeps what was found out about a cell."""
        file = self._file(kind, cell)
        file.parent.mkdir(exist_ok=True)
        made = {"format": FORMAT, "cell": cell.key, "code": self._code.get(cell.criterion), "found": found}
        write_text(file, json.dumps(made))

    def _file(self, kind: Kind, cell: Cell) -> Path:
        return self.folder / kind / f"{cell.key}.json"


def write_text(file: Path, text: str) -> None:
    """Writes beside the file under another name, then renames."""
    partial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(file, error) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FileFormatError(f"{file} is of another version or no file of a study: delete it, or give another folder")
    return document


def _damaged(file: Path, error: Exception) -> FileFormatError:
    return FileFormatError(f"{file} is damaged ({error}): delete it, and it will be measured anew")
