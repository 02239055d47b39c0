"""Finished cells are kept, whatever ends the process, and never measured again; other conditions are refused."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunegraph.errors import CriterionError, FileFormatError, InputError
from prunegraph.leaderboard.laboratory import Laboratory
from prunegraph.leaderboard.leaderboard import run_study
from prunegraph.leaderboard.running import Outcome, run_here
from prunegraph.leaderboard.study import Cell, Entrant
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.leaderboard.conftest import QUICK
from tests.leaderboard.networks import flat
from tests.project.sources import ROOT


class Watched:
    """Notes which cells are measured."""

    def __init__(self) -> None:
        self.cells: list[str] = []

    def __call__(self, laboratory: Laboratory, cells: Sequence[Cell]) -> Iterator[Outcome]:
        for outcome in run_here(laboratory, cells):
            self.cells.append(outcome.cell.criterion)
            yield outcome


def test_finished_cells_are_not_measured_again(study, tmp_path: Path) -> None:
    first, again, more = Watched(), Watched(), Watched()
    few = study(recoveries=("compensated",))
    before = run_study(few, tmp_path / "out", run=first)
    assert run_study(few, tmp_path / "out", run=again).rows == before.rows
    after = run_study(replace(few, criteria=("l1", "l2")), tmp_path / "out", run=more)
    assert (first.cells, again.cells, more.cells) == (["dense", "l1", "random"], [], ["l2"])
    assert {row.criterion for row in after.rows} == {"dense", "l1", "l2", "random"}


PLUGIN = """
import torch
from prunegraph.plugin import hookimpl

class Mine:
    name, needs = "mine", frozenset()

    def supports(self, graph, context):
        return ()

    def score(self, graph, weights, context):
        return {{group.name: {sign}torch.arange(float(group.width)) for group in graph.groups}}

@hookimpl
def prunegraph_criteria():
    return [Mine()]
"""


def test_cells_of_a_criterion_whose_source_changed_are_measured_again(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine-1.dist-info").mkdir()
    (tmp_path / "mine-1.dist-info" / "METADATA").write_text("Name: mine\nVersion: 1\n")
    (tmp_path / "mine-1.dist-info" / "entry_points.txt").write_text("[prunegraph]\nmine = mine_of_tests\n")
    monkeypatch.syspath_prepend(tmp_path)
    asked, measured = study(criteria=("mine",), recoveries=("compensated",)), []
    for sign in ("+", "+", "-"):
        (tmp_path / "mine_of_tests.py").write_text(PLUGIN.format(sign=sign))
        monkeypatch.delitem(sys.modules, "mine_of_tests", raising=False)
        run_study(asked, tmp_path / "out", run=(watched := Watched()))
        measured.append(watched.cells)
    assert measured == [["dense", "mine", "random"], [], ["mine"]]


def test_an_interrupted_run_keeps_what_was_finished(study, tmp_path: Path) -> None:
    def interrupted(laboratory: Laboratory, cells: Sequence[Cell]) -> Iterator[Outcome]:
        yield from run_here(laboratory, cells[:2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study(recoveries=("compensated",)), tmp_path, run=interrupted)
    rest = Watched()
    assert len(run_study(study(recoveries=("compensated",)), tmp_path, run=rest).rows) == 3
    assert rest.cells == ["random"]


def test_a_killed_process_loses_the_running_cell_only(
    run: Callable[..., Any],  # noqa: F811
    speakers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = (
        f"--criteria random --recoveries compensated --output {tmp_path / 'out'} --speakers {speakers} --device cpu "
    )
    options += "--seconds 0.5 --batch 1 --batches 1 --compensation 1 --count 2 --timing 0.02 --json"
    command = ["bench", "net=tests.leaderboard.networks:mortal", *options.split()]
    monkeypatch.setenv("MORTAL", str(tmp_path / "mortal"))
    (tmp_path / "mortal").write_text("")
    killed = subprocess.run([sys.executable, "-m", "prunegraph", *command], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    (finished,) = (tmp_path / "out" / "qualities").iterdir()
    before = finished.stat().st_mtime_ns
    (tmp_path / "mortal").unlink()
    done = run(*command)
    assert done.exit_code == 0, done.stderr
    assert "2 cells, 1 of them finished before" in done.stderr
    assert [row["criterion"] for row in json.loads(done.stdout)["rows"]] == ["dense", "random"]
    assert finished.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, effort=replace(QUICK, steps=3)), "steps was 2 and is 3 now"),
        (lambda s: replace(s, recoveries=("tuned",)), "recoveries was compensated, tuned, both and is tuned now"),
        (lambda s: replace(s, entrants=(Entrant(name="small", open=flat),)), "weights of small was"),
    ],
    ids=["effort", "recoveries", "weights"],
)
def test_other_conditions_in_the_same_folder_are_refused(study, tmp_path: Path, change: Callable, message: str) -> None:
    cheap = study(recoveries=("compensated", "tuned", "both"))
    run_study(cheap, tmp_path, run=lambda laboratory, cells: iter(()))
    with pytest.raises(InputError, match=message):
        run_study(change(cheap), tmp_path)


def test_a_folder_with_something_else_is_refused(study, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="exists already and holds no study"):
        run_study(study(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["{", "{}", '{"format": "prunegraph.leaderboard/1", "found": {"plan": 3}}'])
def test_a_damaged_file_is_named(study, tmp_path: Path, text: str) -> None:
    run_study(study(), tmp_path, run=lambda laboratory, cells: iter(()))
    file = tmp_path / "qualities" / "small--l1--0.5--0.json"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(FileFormatError, match=re.escape(file.name)):
        run_study(study(), tmp_path)


def test_a_criterion_that_cannot_serve_is_left_out_or_refused(study, tmp_path: Path) -> None:
    """No norm, nothing to score by its gain."""
    asked = study(criteria=("l1", "bn-scale"))
    nothing = lambda laboratory, cells: iter(())  # noqa: E731
    assert list(run_study(asked, tmp_path / "a", run=nothing).refused) == [("small", "bn-scale")]
    with pytest.raises(CriterionError, match="'bn-scale' cannot serve small"):
        run_study(asked, tmp_path / "b", insist=True)
