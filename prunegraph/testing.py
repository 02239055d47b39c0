"""Conformance kit for authors of plug-ins: the contract of a criterion, as checks to be run in their tests.

Example::

    from prunegraph.testing import check_criterion

    def test_conforms():
        check_criterion(MyCriterion())
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn import functional as F

from prunegraph.graph import build_graph
from prunegraph.importance.gradients import BatchGradients
from prunegraph.importance.moments import InputMoments
from prunegraph.ir.budget import Budget
from prunegraph.masked.program import MaskedProgram
from prunegraph.plugin.contracts import Criterion, CriterionContext, GraphView, fault_of, run_criterion

__all__ = ["CRITERION_CHECKS", "Case", "check_criterion", "example_case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request to score channels: what a criterion is tried on.

    Attributes:
        graph: the groups to score.
        weights: parameter name -> detached tensor.
        context: what the criterion may look at beside the weights.
    """

    graph: GraphView
    weights: Mapping[str, torch.Tensor]
    context: CriterionContext


def check_criterion(criterion: Criterion, case: Case | None = None) -> None:
    """Checks that a criterion keeps its contract; runs every check of `CRITERION_CHECKS`.

    Args:
        criterion: what to check.
        case: what to try it on; `example_case` when None. Give your own for a criterion that needs a
            network of some kind.

    Raises:
        AssertionError: a check failed; says which clause of the contract is broken.
        CriterionError: the criterion cannot serve the case.
    """
    tried = example_case() if case is None else case
    for check in CRITERION_CHECKS:
        check(criterion, tried)


def example_case(*, device: torch.device | str = "cpu", seed: int = 0) -> Case:
    """A small network with a residual connection, a norm and an LSTM; with everything that a context may hold.

    Args:
        device: where the network lives; try "cuda" too.
        seed: of the weights and the data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _ExampleNetwork().to(device)
        data = [(torch.randn(2, 1, 20, device=device), torch.randn(2, 20, 2, device=device)) for _ in range(2)]
    graph = build_graph(network, data[0][0])
    gradients = BatchGradients(graph=graph, data=data, loss=F.mse_loss)
    return Case(
        graph=graph,
        weights={name: weight.detach() for name, weight in network.named_parameters()},
        context=CriterionContext(
            seed=seed,
            gradients=gradients,
            moments=InputMoments(graph=graph, data=data),
            data=data,
            loss=F.mse_loss,
            masked_program=MaskedProgram(graph),
            budget=Budget(macs=0.5),
        ),
    )


def check_identity(criterion: Criterion, case: Case) -> None:
    """It satisfies the protocol, has a name, and asks only for what there is."""
    fault = fault_of(criterion)
    _require(fault is None, f"{criterion!r} {fault}")


def check_supports_does_no_work(criterion: Criterion, case: Case) -> None:
    """``supports`` answers with sentences, without reading tensors, batches or the loss."""
    reasons = criterion.supports(case.graph, _untouchable(case.context))
    sentences = isinstance(reasons, tuple) and all(isinstance(reason, str) and reason for reason in reasons)
    _require(sentences, f"supports() must return a tuple of sentences, got {reasons!r}")


def check_weights_stay_untouched(criterion: Criterion, case: Case) -> None:
    """Scoring reads the weights and writes nothing."""
    before = {name: (weight.clone(), weight._version) for name, weight in case.weights.items()}
    _score(criterion, case)
    changed = [
        name
        for name, (value, version) in before.items()
        if case.weights[name]._version != version or not torch.equal(case.weights[name], value)
    ]
    _require(not changed, f"score() changed the weights {changed}")


def check_scores(criterion: Criterion, case: Case) -> None:
    """One finite real score per channel, outside autograd."""
    scores = run_criterion(criterion, case.graph, case.weights, case.context)
    attached = [name for name, score in scores.items() if score.requires_grad]
    _require(not attached, f"scores must be detached; these require gradients: {attached}")


def check_same_seed_same_scores(criterion: Criterion, case: Case) -> None:
    """The seed decides alone, and the global random generator is neither used nor moved."""
    first = _score(criterion, case)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.context.seed + 1)
        before = torch.get_rng_state()
        second = _score(criterion, case)
        moved = not torch.equal(before, torch.get_rng_state())
    different = [name for name in first if not torch.equal(first[name], second[name])]
    _require(not different, f"the same seed gave other scores for {different}")
    _require(not moved, "score() drew from torch's global generator; use torch.Generator().manual_seed(context.seed)")


def check_device_is_kept(criterion: Criterion, case: Case) -> None:
    """Scores lie where the group's weights lie."""
    scores = _score(criterion, case)
    for group in case.graph.groups:
        devices = {case.weights[m.tensor].device for m in group.members if m.tensor in case.weights}
        found = scores[group.name].device
        _require(not devices or found in devices, f"scores of {group.name!r} are on {found}, its weights on {devices}")


CRITERION_CHECKS: tuple[Callable[[Criterion, Case], None], ...] = (
    check_identity,
    check_supports_does_no_work,
    check_weights_stay_untouched,
    check_scores,
    check_same_seed_same_scores,
    check_device_is_kept,
)
"""Every clause of the contract; parametrise a test with them to see each by name."""


class _ExampleNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.block = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.rnn = nn.LSTM(8, 6, batch_first=True)
        self.decoder = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.encoder(x)))
        x = x + self.block(x)
        hidden, _ = self.rnn(x.transpose(1, 2))
        decoded: torch.Tensor = self.decoder(hidden)
        return decoded


class _Untouchable(Mapping[Any, Any]):
    """Stands for tensors, batches or a function, and fails when anybody reads or calls it."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        self()

    def __getitem__(self, key: Any) -> Any:
        self()

    def __call__(self, *args: Any) -> NoReturn:
        raise AssertionError("supports() must answer before any work; it read tensors or batches or called a function")


def _untouchable(context: CriterionContext) -> CriterionContext:
    trap = _Untouchable()
    return CriterionContext(
        seed=context.seed,
        gradients=None if context.gradients is None else trap,
        moments=None if context.moments is None else trap,
        data=None if context.data is None else trap,
        loss=None if context.loss is None else trap,
        masked_program=None if context.masked_program is None else trap,
    )


def _score(criterion: Criterion, case: Case) -> dict[str, torch.Tensor]:
    return dict(criterion.score(case.graph, case.weights, case.context))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
