"""The conformance kit passes our own criteria and catches each way of breaking the contract."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from prunegraph.plugin import Criterion, CriterionContext, create_manager, load_criteria
from prunegraph.testing import CRITERION_CHECKS, Case, check_criterion, example_case
from prunegraph_sepprune import SepPrune
from prunegraph_sepprune.learning import LearningSettings
from tests.plugin.graphs import WEIGHTS, graph

SHORT = LearningSettings(steps=10)
OURS = {
    name: replace(criterion, learning=SHORT) if isinstance(criterion, SepPrune) else criterion
    for name, criterion in load_criteria(create_manager()).items()
}
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


@pytest.fixture(scope="module")
def case() -> Case:
    return example_case()


@pytest.fixture(scope="module", params=DEVICES)
def case_on_device(request: pytest.FixtureRequest) -> Case:
    return example_case(device=request.param)


@pytest.mark.parametrize("check", CRITERION_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("criterion", OURS.values(), ids=OURS)
def test_our_criteria_keep_the_contract(criterion: Criterion, check: Callable, case_on_device: Case) -> None:
    check(criterion, case_on_device)


@pytest.mark.parametrize("criterion", [c for c in OURS.values() if c.needs <= {"gradients"}], ids=lambda c: c.name)
def test_our_criteria_keep_the_contract_on_a_graph_made_by_hand(criterion: Criterion) -> None:
    context = CriterionContext(seed=3, gradients=[WEIGHTS])
    check_criterion(criterion, Case(graph=graph(), weights=WEIGHTS, context=context))


@dataclass(frozen=True)
class Good:
    """Sums of squares; each class below breaks one clause."""

    name: str = "good"
    needs: frozenset[str] = frozenset()

    def supports(self, graph: Any, context: CriterionContext) -> Any:
        return ()

    def score(self, graph: Any, weights: Mapping[str, torch.Tensor], context: CriterionContext) -> Any:
        energy = sum(weight.square().sum() for weight in weights.values())
        return {group.name: energy.expand(group.width) for group in graph.groups}


class Nameless(Good):
    name = ""


class Greedy(Good):
    needs = frozenset({"everything"})


class AnswersWithAFlag(Good):
    def supports(self, graph: Any, context: CriterionContext) -> Any:
        return True


class ReadsData(Good):
    def supports(self, graph: Any, context: CriterionContext) -> Any:
        return () if list(context.data or ()) else ("there is no data",)


class CallsLoss(Good):
    def supports(self, graph: Any, context: CriterionContext) -> Any:
        assert context.loss is not None
        context.loss(torch.zeros(1), torch.zeros(1))
        return ()


class Attached(Good):
    def score(self, *args: Any) -> Any:
        return {name: score.clone().requires_grad_() for name, score in super().score(*args).items()}


class Unseeded(Good):
    def score(self, *args: Any) -> Any:
        return {name: torch.rand(len(score)) for name, score in super().score(*args).items()}


class MovesTheGenerator(Good):
    def score(self, *args: Any) -> Any:
        torch.rand(1)
        return super().score(*args)


class ChangesWeights(Good):
    def score(self, graph: Any, weights: Mapping[str, torch.Tensor], context: CriterionContext) -> Any:
        for weight in weights.values():
            weight.abs_()
        return super().score(graph, weights, context)


class ChangesWeightsInSecret(Good):
    """What is written through ``.data`` has no new version, and abs changes nothing the second time."""

    def score(self, graph: Any, weights: Mapping[str, torch.Tensor], context: CriterionContext) -> Any:
        for weight in weights.values():
            weight.data.abs_()
        return super().score(graph, weights, context)


class MovesDevice(Good):
    def score(self, *args: Any) -> Any:
        return {name: score.to("meta") for name, score in super().score(*args).items()}


def test_the_first_check_that_scores_sees_what_scoring_does_to_the_weights() -> None:
    with pytest.raises(AssertionError, match="changed the weights"):
        check_criterion(_make(ChangesWeightsInSecret), example_case())


def test_a_good_criterion_passes(case: Case) -> None:
    check_criterion(Good(), case)


@pytest.mark.parametrize(
    ("broken", "clause", "message"),
    [
        (Nameless, "check_identity", "is named ''"),
        (Greedy, "check_identity", "everything"),
        (AnswersWithAFlag, "check_supports_does_no_work", "tuple of sentences"),
        (ReadsData, "check_supports_does_no_work", "before any work"),
        (CallsLoss, "check_supports_does_no_work", "before any work"),
        (Attached, "check_scores", "detached"),
        (Unseeded, "check_same_seed_same_scores", "same seed"),
        (MovesTheGenerator, "check_same_seed_same_scores", "global generator"),
        (ChangesWeights, "check_weights_stay_untouched", "changed the weights"),
        (ChangesWeightsInSecret, "check_weights_stay_untouched", "changed the weights"),
        (MovesDevice, "check_device_is_kept", "meta"),
    ],
)
def test_each_broken_clause_is_caught(broken: type, clause: str, message: str) -> None:
    check = next(check for check in CRITERION_CHECKS if check.__name__ == clause)
    with pytest.raises(AssertionError, match=message):
        check(_make(broken), example_case())


def _make(broken: type) -> Any:
    """Class attributes override the dataclass fields of `Good`."""
    overridden = {name: vars(broken)[name] for name in ("name", "needs") if name in vars(broken)}
    return broken(**overridden)


def test_the_example_can_be_had_again(case: Case) -> None:
    again = example_case()
    assert all(torch.equal(case.weights[name], again.weights[name]) for name in case.weights)
    assert [group.name for group in case.graph.groups] == [group.name for group in again.graph.groups]


def test_the_example_covers_a_norm_an_lstm_and_a_residual_connection(case: Case) -> None:
    tensors = {member.tensor for group in case.graph.groups for member in group.members}
    assert {"encoder.weight", "norm.running_mean", "block.weight", "rnn.weight_hh_l0", "decoder.weight"} <= tensors
    assert case.context.gradients
    for gradients in case.context.gradients:
        assert all(gradients[name].shape == weight.shape for name, weight in case.weights.items())


def test_making_the_example_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    example_case()
    assert torch.equal(before, torch.get_rng_state())
