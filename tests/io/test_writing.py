"""Saving is all or nothing, and never at the cost of somebody else's files."""

import dataclasses
import itertools
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prunegraph
from prunegraph.io import directory
from tests.io.networks import EXAMPLES, Codec

FACTORY = EXAMPLES["plain"].factory

OLD = {"pruned.safetensors": b"old", "plan.json": b'{"format": "test"}'}
NEW = {"pruned.safetensors": b"new weights", "plan.json": b'{"format": "test", "new": 1}'}


def _content(path: Path) -> dict[str, bytes] | None:
    return {file.name: file.read_bytes() for file in path.iterdir()} if path.exists() else None


def _write_and_be_killed(target: Path, step: int) -> int:
    """Writes in a process of its own, killed by signal 9 before its n-th call to the file system; its exit code."""
    child = os.fork()
    if child == 0:
        try:
            _kill_before(step)
            directory.write_directory(target, NEW, "plan.json", "test")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _kill_before(step: int) -> None:
    steps = itertools.count()

    def killing(function: Callable) -> Callable:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    for owner, name in ((os, "fsync"), (Path, "mkdir"), (Path, "rename"), (Path, "open"), (shutil, "rmtree")):
        setattr(owner, name, killing(getattr(owner, name)))


@pytest.mark.parametrize("exists", [False, True])
def test_a_killed_process_leaves_the_old_the_new_or_nothing(tmp_path: Path, exists: bool) -> None:
    """Killed before each of its calls in turn, until one run gets through."""
    seen = []
    for step in range(30):
        target = tmp_path / str(step) / "saved"
        target.parent.mkdir()
        if exists:
            directory.write_directory(target, OLD, "plan.json", "test")
        code = _write_and_be_killed(target, step)
        assert code in (0, -signal.SIGKILL)
        seen.append(_content(target))
        if code == 0:
            break
    assert seen[-1] == NEW
    assert seen[0] == (OLD if exists else None)
    assert all(content in (OLD if exists else None, NEW, None) for content in seen)
    assert len(seen) > 6


def test_a_full_disk_leaves_nothing_behind(
    plain: prunegraph.PruningResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        prunegraph.save(plain, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_the_result_is_left(saved: Path) -> None:
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
    assert sorted(path.name for path in saved.iterdir()) == ["plan.json", "pruned.safetensors"]


def test_nothing_is_pickled(plain: prunegraph.PruningResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("pickle")

    for owner, name in ((torch, "save"), (torch, "load"), (pickle, "dumps"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, forbidden)
    assert prunegraph.load(FACTORY, prunegraph.save(plain, tmp_path / "saved"))


def test_an_earlier_result_is_replaced(saved: Path, plain: prunegraph.PruningResult) -> None:
    tuned = FACTORY()
    tuned = prunegraph.apply(tuned, plain.plan)
    nn.init.ones_(tuned.encoder.weight)
    prunegraph.save(dataclasses.replace(plain, model=tuned), saved)
    assert torch.equal(prunegraph.load(FACTORY, saved).encoder.weight, tuned.encoder.weight)
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_parents_are_made_and_links_followed(plain: prunegraph.PruningResult, tmp_path: Path) -> None:
    prunegraph.save(plain, tmp_path / "a" / "b" / "saved")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b" / "saved")
    prunegraph.save(plain, str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert prunegraph.load(FACTORY, tmp_path / "link")


@pytest.mark.parametrize("name", ["notes.txt", "model.pt", ".hidden"])
def test_a_directory_with_other_files_is_refused_and_kept(
    saved: Path, plain: prunegraph.PruningResult, name: str
) -> None:
    (saved / name).write_text("precious")
    before = _content(saved)
    with pytest.raises(prunegraph.InputError, match=name):
        prunegraph.save(plain, saved)
    assert _content(saved) == before


@pytest.mark.parametrize("content", ["{}", "nothing", '{"format": "of somebody else"}'])
def test_a_plan_of_somebody_else_is_refused_and_kept(
    plain: prunegraph.PruningResult, tmp_path: Path, content: str
) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(prunegraph.InputError, match="not written by prunegraph"):
        prunegraph.save(plain, tmp_path)
    assert (tmp_path / "plan.json").read_text() == content


def test_a_file_in_the_place_is_refused_and_kept(plain: prunegraph.PruningResult, tmp_path: Path) -> None:
    (tmp_path / "saved").write_text("precious")
    with pytest.raises(prunegraph.InputError, match="is no directory"):
        prunegraph.save(plain, tmp_path / "saved")
    assert (tmp_path / "saved").read_text() == "precious"


class _Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: FACTORY(), r"encoder\.weight has shape \(12, 1, 4\), planned is \(6, 1, 4\)"),
        (_Wrapper, "encoder.weight is missing"),
        (lambda model: Codec(nn.Conv1d(12, 12, 1)), "encoder.weight"),
    ],
)
def test_a_network_that_is_not_the_plans_is_refused(
    plain: prunegraph.PruningResult, tmp_path: Path, change, message: str
) -> None:
    with pytest.raises(prunegraph.PlanError, match=message):
        prunegraph.save(dataclasses.replace(plain, model=change(plain.model)), tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


class _Pickled(nn.Module):
    def get_extra_state(self) -> object:
        return {"schedule": [object()]}

    def set_extra_state(self, state: object) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_state_that_only_pickle_could_save_is_refused_by_name(tmp_path: Path) -> None:
    example = EXAMPLES["plain"]
    result = prunegraph.prune(Codec(_Pickled()), example.inputs(), budget=prunegraph.Budget(ratio=0.5))
    with pytest.raises(prunegraph.InputError, match=r"middle\.schedule\.0 is of type object"):
        prunegraph.save(result, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
