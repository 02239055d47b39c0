"""A saved network can be proved again, also when it was trained in between."""

import dataclasses
from pathlib import Path

import pytest
import torch

import prunegraph
from prunegraph import FileFormatError, VerificationError
from prunegraph.io.checking import verify_saved
from prunegraph.io.saved_network import read, write
from tests.io.networks import EXAMPLES


def _details(report) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks}


@pytest.mark.parametrize("name", EXAMPLES)
def test_slices_and_trained_weights_are_told_apart_and_both_proved(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    torch.manual_seed(1)
    dense = example.factory().eval()
    result = prunegraph.prune(dense, torch.randn(example.shape), budget=prunegraph.Budget(ratio=0.5))
    path = prunegraph.save(result, tmp_path / "saved")
    saved, report = verify_saved(dense, path, torch.randn(example.shape))
    assert saved.plan == result.plan
    assert "all" in _details(report)["origin"]
    with torch.no_grad():
        next(result.model.parameters()).mul_(1.5)
    tuned = dataclasses.replace(result, model=example.finish(result.model))
    _, report = verify_saved(dense, prunegraph.save(tuned, path), example.inputs())
    assert " of " in _details(report)["origin"]
    assert report.difference <= report.tolerance
    assert set(_details(report)) == {
        "files",
        "origin",
        "plan",
        "cost",
        "output",
        "backward",
        "training",
        "other inputs",
    }


def test_the_dense_network_is_left_as_it_was(saved: Path) -> None:
    dense = EXAMPLES["plain"].factory()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    verify_saved(dense, saved, EXAMPLES["plain"].inputs())
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())


def test_a_plan_that_contradicts_itself_is_caught(saved: Path, tmp_path: Path) -> None:
    """With hashes that fit, as a program could write them."""
    honest = read(saved)
    tensors = {name: dict(dims) for name, dims in honest.plan.tensors.items()}
    kept = tensors["decoder.weight"][0]
    gone = next(i for i in range(12) if i not in kept)
    tensors["decoder.weight"][0] = tuple(sorted((*kept[1:], gone)))
    plan = dataclasses.replace(honest.plan, tensors=tensors)
    write(dataclasses.replace(honest, plan=plan), tmp_path / "wrong")
    with pytest.raises(VerificationError, match=r"other indices of decoder\.weight"):
        verify_saved(EXAMPLES["plain"].factory(), tmp_path / "wrong", EXAMPLES["plain"].inputs())


def test_another_network_is_refused(saved: Path) -> None:
    with pytest.raises(FileFormatError, match="another network"):
        verify_saved(EXAMPLES["tied"].factory(), saved, EXAMPLES["tied"].inputs())
