"""The command line as a user meets it, but in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prunegraph.cli import app

SEPARATOR = ("tests.cli.networks:separator", "--input-shape", "1,1,200")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a command on a wide terminal; the result has ``exit_code``, ``stdout`` and ``stderr``."""
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"NO_COLOR": "1"})

    return invoke


@pytest.fixture
def saved(run: Callable[..., Any], tmp_path: Path) -> Path:
    """A directory with a separator at half of its MACs."""
    assert run("prune", *SEPARATOR, "--macs", 0.5, "--output", tmp_path / "saved").exit_code == 0
    return tmp_path / "saved"
