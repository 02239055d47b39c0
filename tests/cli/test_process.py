"""A few real processes: the installed command, ``python -m prunegraph``, pipes and signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import SEPARATOR
from tests.project.sources import ROOT

MODULE = (sys.executable, "-m", "prunegraph")
COMMAND = (str(Path(sys.executable).with_name("prunegraph")),)


def _run(*command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [COMMAND, MODULE], ids=["command", "module"])
def test_the_command_and_the_module_are_the_same_program(command: tuple[str, ...]) -> None:
    done = _run(*command, "inspect", *SEPARATOR, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["groups"]) == 2


def test_modules_are_found_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\ndef make():\n"
        "    net = torch.nn.Sequential(torch.nn.Conv1d(1, 6, 3), torch.nn.Conv1d(6, 1, 3))\n"
        "    return net, torch.randn(1, 1, 20)\n"
    )
    done = _run(*COMMAND, "prune", "net:make", "--ratio", "0.5", "--output", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["plan.json", "pruned.safetensors"]


def test_an_interrupt_from_the_keyboard_is_no_traceback(tmp_path: Path) -> None:
    # A shell lets the commands that it runs in the background ignore interrupts, and they hand that on.
    heeding = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    (tmp_path / "slow.py").write_text(
        f"import os, signal\ndef make():\n    {heeding}\n    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = _run(*MODULE, "inspect", "slow:make", folder=tmp_path)
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [*MODULE, "plugins"], cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
