"""The results of a run, stored after each stage."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunegraph.errors import InputError
from prunegraph.evaluation.intervals import MeanInterval

FILE = "stages.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A network that was scored.

    Attributes:
        name: what was done before its training: ``dense``, ``pruned``, ``compensated``, ``from scratch``...
        epochs: of training since.
        sdri: SDR improvement on the test mixtures in dB.
        si_sdri: SI-SDR improvement on the test mixtures in dB.
    """

    name: str
    epochs: int
    sdri: MeanInterval
    si_sdri: MeanInterval


class Journal:
    """The stages of a run and what decides them.

    Args:
        folder: of the run; it is made if need be.
        about: what decides the results, as JSON; an existing run must have been begun with the same.

    Raises:
        InputError: the run was begun with something else.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder, self.about = folder, dict(about)
        self.stages: tuple[Stage, ...] = ()
        if not (folder / FILE).exists():
            self._write()
            return
        known, self.stages = _read(folder)
        for name, value in self.about.items():
            if known.get(name) != value:
                raise InputError(
                    f"{folder} was begun with {name} = {known.get(name)!r}, not {value!r}: repeat that, or give "
                    "another folder"
                )

    def find(self, name: str, epochs: int) -> Stage | None:
        """The stage, if it was measured."""
        return next((stage for stage in self.stages if (stage.name, stage.epochs) == (name, epochs)), None)

    def add(self, stage: Stage) -> Stage:
        """Stores a stage; returns it."""
        self.stages = (*self.stages, stage)
        self._write()
        return stage

    def _write(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{FILE}.{os.getpid()}.partial"
        document = {"about": self.about, "stages": [asdict(stage) for stage in self.stages]}
        partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
        partial.replace(self._folder / FILE)


def open_journal(folder: Path) -> Journal:
    """The journal of an existing run.

    Raises:
        InputError: there is none.
    """
    if not (folder / FILE).is_file():
        raise InputError(f"{folder} is no folder of a run: it has no {FILE}")
    return Journal(folder, _read(folder)[0])


def _read(folder: Path) -> tuple[dict[str, Any], tuple[Stage, ...]]:
    document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return document["about"], tuple(
        Stage(
            name=stage["name"],
            epochs=stage["epochs"],
            sdri=MeanInterval(**stage["sdri"]),
            si_sdri=MeanInterval(**stage["si_sdri"]),
        )
        for stage in document["stages"]
    )
