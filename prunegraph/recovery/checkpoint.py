"""Checkpoints that a process killed at any moment leaves whole."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prunegraph.errors import FileFormatError

FORMAT = "prunegraph.recovery/2"


def write_checkpoint(state: Mapping[str, Any], file: Path) -> None:
    """Writes beside the file under another name, then renames: there is always the old file or the new one.

    Raises:
        OSError: there is no room or no right to write; nothing is left behind.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    try:
        with partial.open("wb") as opened:
            torch.save({"format": FORMAT, **state}, opened)
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    except OSError as error:  # of writing, which knows no name
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        partial.unlink(missing_ok=True)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Reads tensors, to the CPU, and plain values; nothing in the file is executed.

    Raises:
        FileFormatError: the file was not written by `write_checkpoint`, or is damaged.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of pickle and zip alike
        raise FileFormatError(
            f"{file} cannot be read ({type(error).__name__}): delete it, or give another run"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise FileFormatError(f"{file} is no checkpoint of a recovery of this version: give another run")
    return state
