"""What a study measures, and what it refuses."""

import pytest

from prunegraph.errors import InputError
from prunegraph.leaderboard.study import Cell, Effort, Entrant
from tests.leaderboard.conftest import opened


def test_controls_are_always_among_the_cells(study) -> None:
    cells = study(criteria=("l2",), budgets=(0.5, 0.3), seeds=(0, 1)).cells()
    assert cells[0] == Cell(network="small", criterion="dense", budget=1.0, seed=0)
    expected = {(c, b, s) for c in ("l2", "random", "scratch") for b in (0.5, 0.3) for s in (0, 1)}
    assert sorted((cell.criterion, cell.budget, cell.seed) for cell in cells[1:]) == sorted(expected)


def test_the_first_seed_comes_first(study) -> None:
    assert [cell.seed for cell in study(seeds=(3, 1)).cells()[1:]] == [3, 3, 3, 1, 1, 1]


def test_random_is_measured_once_where_it_is_asked_for(study) -> None:
    assert [cell.criterion for cell in study(criteria=("random", "l1")).cells()].count("random") == 1


def test_nothing_is_trained_from_scratch_where_nothing_is_trained(study) -> None:
    assert "scratch" not in {cell.criterion for cell in study(recoveries=("compensated",)).cells()}


def test_keys_are_names_of_files_and_differ() -> None:
    cells = [
        Cell(network=n, criterion=c, budget=b, seed=s)
        for n in ("a", "a/b")
        for c in "xy"
        for b in (0.5, 0.25)
        for s in (0, 1)
    ]
    assert len({cell.key for cell in cells}) == len(cells)
    assert not any("/" in cell.key for cell in cells)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": (1.5,)}, "the budget 1.5 is no share of the MACs"),
        ({"criteria": ("l1", "dense")}, "'dense' is the name of a control"),
        ({"criteria": ("scratch",)}, "'scratch' is the name of a control"),
        ({"budgets": ()}, "a study needs budgets"),
        ({"seeds": ()}, "a study needs seeds"),
        ({"entrants": (Entrant(name="a", open=opened), Entrant(name="a", open=opened))}, "two networks are named 'a'"),
    ],
)
def test_what_cannot_be_measured_is_refused(study, changes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        study(**changes)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"seconds": -1.0}, {"mixtures": 1}, {"timing_s": float("nan")}])
def test_efforts_are_positive(changes) -> None:
    with pytest.raises(InputError, match="efforts must be positive"):
        Effort(**changes)
