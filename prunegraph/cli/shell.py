"""How the commands speak: tables to standard output, progress and one line per mistake to standard error."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from prunegraph.errors import PrunegraphError

_WIDTH_IN_PIPES = 140
"""Columns where no terminal says how many there are: long names stay in one piece, also for grep."""


def output() -> Console:
    """Standard output: colours in a terminal only, and no mark-up in users' names."""
    in_pipe = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(markup=False, highlight=False, emoji=False, width=_WIDTH_IN_PIPES if in_pipe else None)


def print_json(document: Any) -> None:
    """Writes a JSON document to standard output."""
    typer.echo(json.dumps(document, indent=2))


def note(text: str) -> None:
    """A remark beside the results."""
    _errors().print(Text(text, "dim"))


@contextmanager
def working() -> Iterator[None]:
    """What users' code prints goes to standard error; a mistake becomes one line there and exit code 1."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except BrokenPipeError:
        raise
    except (PrunegraphError, OSError) as error:
        _errors().print(Text.assemble(("error: ", "bold red"), _one_line(error)))
        raise typer.Exit(1) from error


class Stages:
    """In a terminal, shows what is being done and, afterwards, how long it took; in pipes, tenths of long stages."""

    def __init__(self) -> None:
        self._console = _errors()
        self._status, self._name, self._started, self._tenth = self._console.status(""), "", 0.0, 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Shows one stage while it runs."""
        self._name, self._started, self._tenth = name, time.perf_counter(), 0
        self._status.update(f"{name} ...")
        with self._status:
            yield
        if self._console.is_terminal:
            seconds = time.perf_counter() - self._started
            self._console.print(Text.assemble((f"{name:<32}", ""), (f"{seconds:8.2f} s", "dim")))

    def progress(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """Shows how far a long stage is, its figures and the time that is left."""
        left = (time.perf_counter() - self._started) * (steps - step) / max(step, 1)
        shown = "".join(f", {name} {value:.3g}" for name, value in figures.items())
        line = f"{self._name}: step {step} of {steps}{shown}; {left:.0f} s left"
        self._status.update(line)
        if not self._console.is_terminal and (tenth := 10 * step // steps) > self._tenth:
            self._tenth = tenth
            self._console.print(line)


def _errors() -> Console:
    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, PrunegraphError):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
