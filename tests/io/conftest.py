"""Networks pruned once, saved by each test where it likes."""

import dataclasses
from pathlib import Path

import pytest
import torch

import prunegraph
from tests.io.networks import EXAMPLES


def pruned(name: str) -> prunegraph.PruningResult:
    """One of the examples, half of its channels removed, tuned a little, finished."""
    example = EXAMPLES[name]
    torch.manual_seed(3)
    inputs = torch.randn(example.shape)
    result = prunegraph.prune(example.factory(), inputs, budget=prunegraph.Budget(ratio=0.5))
    with torch.no_grad():
        for parameter in result.model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return dataclasses.replace(result, model=example.finish(result.model))


@pytest.fixture(scope="session")
def plain() -> prunegraph.PruningResult:
    """The plainest of them."""
    return pruned("plain")


@pytest.fixture
def saved(plain: prunegraph.PruningResult, tmp_path: Path) -> Path:
    """A directory with the plainest of them."""
    return prunegraph.save(plain, tmp_path / "saved")
