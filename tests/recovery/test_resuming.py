"""Real processes: killed and resumed, and sharing their work."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.project.sources import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.recovery.training_runs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])


def test_a_run_that_is_killed_ends_with_the_same_bits(found: dict[str, Any], folder: Path) -> None:
    whole, killed = found["whole"], dict(found["killed"])
    assert killed.pop("killed") == [9, 9, 9, 9]
    assert killed == whole
    assert whole["rounds"] == 2
    assert [step for step, *_ in whole["checks"]] == [2, 4, 6, 8, 10, 12]
    files = [torch.load(folder / name / "last.pt", weights_only=True) for name in ("whole", "killed")]
    optimizers = [file["optimizer"]["state"] for file in files]
    assert all(torch.equal(v, optimizers[1][i][k]) for i, s in optimizers[0].items() for k, v in s.items())
    assert files[0]["step"] == files[1]["step"] == 12
    best = torch.load(folder / "killed" / "best.pt", weights_only=True)
    assert best["step"] == whole["best"]
    assert all(tensor.flatten().tolist() == whole["state"][name] for name, tensor in best["network"].items())


def test_two_processes_get_the_gradients_of_one(found: dict[str, Any]) -> None:
    alone = np.array(found["shared"]["alone"]["gradients"])
    assert alone.shape[0] == 3
    for process in found["shared"]["together"]:
        assert process["world"] == 2
        assert np.allclose(process["gradients"], alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max())
        assert process["losses"] == pytest.approx(found["shared"]["alone"]["losses"], abs=1e-3)
