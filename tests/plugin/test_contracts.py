"""The host runs criteria under their contract, whatever they do."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from prunegraph.errors import CriterionError
from prunegraph.plugin import CriterionContext, run_criterion
from tests.plugin.graphs import WEIGHTS, graph

CONTEXT = CriterionContext()


@dataclass(frozen=True)
class Scripted:
    """A criterion that returns what the test wants."""

    scores: Any = None
    reasons: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    name: str = "scripted"
    on_score: Callable[[], None] = lambda: None
    on_supports: Callable[[], None] = lambda: None

    def supports(self, graph: object, context: CriterionContext) -> tuple[str, ...]:
        self.on_supports()
        return self.reasons

    def score(self, graph: object, weights: object, context: CriterionContext) -> Any:
        self.on_score()
        return self.scores


def work() -> None:
    pytest.fail("the criterion was run although it cannot serve the request")


def test_good_scores_pass_through() -> None:
    scores = {"first": torch.tensor([1.0, 2.0])}
    assert run_criterion(Scripted(scores=scores), graph(), WEIGHTS, CONTEXT) is scores


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "no scores for group 'first'"),
        ({"first": torch.ones(2), "last": torch.ones(2)}, "'last', which is no group"),
        ({"first": torch.ones(3)}, r"'first': expected shape \(2,\).*got \(3,\)"),
        ({"first": torch.ones(2, 1)}, r"got \(2, 1\)"),
        ({"first": torch.tensor([1.0, float("nan")])}, "'first': channel 1 is nan"),
        ({"first": torch.tensor([float("-inf"), 1.0])}, "'first': channel 0 is -inf"),
        ({"first": torch.ones(2, dtype=torch.complex64)}, "real numbers, got torch.complex64"),
        ({"first": torch.ones(2, dtype=torch.bool)}, "real numbers, got torch.bool"),
        ({"first": [1.0, 2.0]}, "real numbers, got list"),
        ({"first": torch.ones(2, device="meta")}, "with values, got one that is meta"),
        ({"first": torch.ones(2).to_sparse()}, "with values, got one that is sparse"),
        (None, "a dict from group names to tensors, got NoneType"),
    ],
)
def test_wrong_scores_are_refused_naming_criterion_and_group(scores: Any, message: str) -> None:
    with pytest.raises(CriterionError, match=f"'scripted'.*{message}"):
        run_criterion(Scripted(scores=scores), graph(), WEIGHTS, CONTEXT)


WRITES = {
    "in place": lambda weight: weight.abs_(),
    "through .data": lambda weight: weight.data.abs_(),
    "through numpy": lambda weight: np.abs(weight.numpy(), out=weight.numpy()),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_overwritten_weights_are_told(write: Callable[[torch.Tensor], Any]) -> None:
    weights = {name: weight.clone() for name, weight in WEIGHTS.items()}
    criterion = Scripted(scores={"first": torch.ones(2)}, on_score=partial(write, weights["second.weight"]))
    with pytest.raises(CriterionError, match=r"'scripted' overwrote weights.*'second\.weight'.*on copies"):
        run_criterion(criterion, graph(), weights, CONTEXT)


def test_a_criterion_that_fails_is_named_with_its_line() -> None:
    def fail() -> None:
        raise KeyError("gamma")

    with pytest.raises(CriterionError, match=r"'scripted' failed: KeyError: 'gamma' \(.*test_contracts\.py:\d+\)"):
        run_criterion(Scripted(on_score=fail), graph(), WEIGHTS, CONTEXT)


def test_supports_that_fails_is_named_with_its_line() -> None:
    def fail() -> None:
        raise KeyError("gamma")

    with pytest.raises(CriterionError, match=r"supports\(\) of .*'scripted' failed: KeyError: 'gamma' \(.*\.py:\d+\)"):
        run_criterion(Scripted(on_supports=fail, on_score=work), graph(), WEIGHTS, CONTEXT)


def test_what_a_criterion_tells_itself_is_left_as_it_is() -> None:
    def refuse() -> None:
        raise CriterionError("give more batches")

    with pytest.raises(CriterionError, match=r"^give more batches$"):
        run_criterion(Scripted(on_score=refuse), graph(), WEIGHTS, CONTEXT)


@pytest.mark.parametrize("reasons", [None, True, "not this one", (1,)])
def test_reasons_of_another_kind_are_refused(reasons: Any) -> None:
    with pytest.raises(CriterionError, match=r"'scripted': supports\(\) returned .*must return a tuple of reasons"):
        run_criterion(Scripted(reasons=reasons, on_score=work), graph(), WEIGHTS, CONTEXT)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(CriterionError, match=r"no scores for group 'first'.*'x', which is no group"):
        run_criterion(Scripted(scores={"x": torch.ones(1)}), graph(), WEIGHTS, CONTEXT)


def test_reasons_are_reported_before_any_work() -> None:
    criterion = Scripted(reasons=("one batch is too few", "give a loss that is differentiable"), on_score=work)
    with pytest.raises(CriterionError, match=r"'scripted' cannot serve.*too few; give a loss"):
        run_criterion(criterion, graph(), WEIGHTS, CONTEXT)


@pytest.mark.parametrize("need", ["gradients", "data", "loss", "masked_program"])
def test_what_a_criterion_needs_and_was_not_given_is_named(need: str) -> None:
    criterion = Scripted(needs=frozenset({need}), on_score=work)
    with pytest.raises(CriterionError, match=f"needs {need}"):
        run_criterion(criterion, graph(), WEIGHTS, CONTEXT)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_weight_is_named_before_any_work(bad: float) -> None:
    weights = WEIGHTS | {"second.weight": torch.tensor([[1.0, 1.0, 1.0, bad], [1.0, 1.0, 1.0, 1.0]])}
    with pytest.raises(CriterionError, match=r"NaN or infinite values in weight 'second\.weight'"):
        run_criterion(Scripted(on_score=work), graph(), weights, CONTEXT)


def test_needs_that_are_met_do_not_refuse() -> None:
    scores = {"first": torch.zeros(2)}
    context = CriterionContext(gradients=[], data=[], loss=torch.nn.functional.mse_loss)
    criterion = Scripted(needs=frozenset({"gradients", "data", "loss"}), scores=scores)
    assert run_criterion(criterion, graph(), WEIGHTS, context) is scores
