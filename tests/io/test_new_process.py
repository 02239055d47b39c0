"""What was saved comes back bit by bit, in a process that knows nothing but the network's code and the files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import prunegraph
from tests.io.conftest import pruned
from tests.io.networks import EXAMPLES
from tests.project.sources import ROOT

READER = """
import json, sys
import prunegraph, safetensors.torch, torch
from tests.io.networks import EXAMPLES

torch.manual_seed(99)
equal = {}
for name, example in EXAMPLES.items():
    model = prunegraph.load(example.factory, f"{sys.argv[1]}/{name}")
    expected = safetensors.torch.load_file(f"{sys.argv[1]}/{name}.output")["output"]
    output = model(example.inputs())
    equal[name] = output.dtype == expected.dtype and torch.equal(output, expected)
print(json.dumps(equal))
"""


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    folder = tmp_path_factory.mktemp("saved")
    for name, example in EXAMPLES.items():
        result = pruned(name)
        prunegraph.save(result, folder / name)
        output = result.model(example.inputs()).detach().contiguous()
        safetensors.torch.save_file({"output": output}, folder / f"{name}.output")
    command = [sys.executable, "-c", READER, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_new_process_computes_the_same_bits(equal: dict[str, bool], name: str) -> None:
    assert equal[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_widths_are_the_pruned_ones(tmp_path: Path, name: str) -> None:
    """Otherwise the other test would say nothing."""
    result = pruned(name)
    loaded = prunegraph.load(EXAMPLES[name].factory, prunegraph.save(result, tmp_path / "saved"))
    smaller = sum(parameter.numel() for parameter in loaded.parameters())
    assert smaller == result.report.pruned.parameters < result.report.dense.parameters
    assert [module.training for module in loaded.modules()] == [m.training for m in result.model.modules()]


def test_tied_tensors_are_stored_once_and_come_back_tied(tmp_path: Path) -> None:
    result = pruned("tied")
    path = prunegraph.save(result, tmp_path / "saved")
    with safetensors.safe_open(path / "pruned.safetensors", "pt") as file:
        assert "second.weight" not in file.keys()  # noqa: SIM118 - it is no dict
        assert file.metadata()["second.weight"] == "first.weight"
    loaded = prunegraph.load(EXAMPLES["tied"].factory(), path)
    assert loaded.first.weight is loaded.second.weight
    assert torch.equal(loaded.first.weight, result.model.first.weight)


def test_the_dense_network_is_left_as_it_was(saved: Path) -> None:
    dense = EXAMPLES["plain"].factory()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    prunegraph.load(dense, saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
    assert dense.encoder.out_channels == 12


def test_a_loaded_network_saves_to_the_same_bytes(saved: Path, plain: prunegraph.PruningResult, tmp_path: Path) -> None:
    again = prunegraph.PruningResult(
        model=prunegraph.load(EXAMPLES["plain"].factory, saved), plan=plain.plan, report=plain.report
    )
    second = prunegraph.save(again, tmp_path / "again")
    for name in ("pruned.safetensors", "plan.json"):
        assert (second / name).read_bytes() == (saved / name).read_bytes()
