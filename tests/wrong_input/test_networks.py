"""Networks and inputs that do not fit: a typed error with the mend, or it works; nothing is changed."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune as torch_prune
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import prunegraph
from prunegraph import Budget, BudgetError, CaptureError, CriterionError, InputError, UnsupportedModelError
from tests.capture.snapshots import process_state, snapshot

HALF = Budget(ratio=0.5)
SIGNAL = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 1, 1)).train()


class Around(nn.Module):
    """A function between two layers of 8 channels."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.a, self.b = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 1, 1)

    def forward(self, x: Tensor) -> Any:
        return self.b(self.function(self.a(x)))


def check_refused(
    model: Any, error: type[Exception], message: str, inputs: Any = SIGNAL, budget: Any = HALF, **options: Any
) -> None:
    """The error is raised, and neither the network nor the process is changed."""
    before = snapshot(model) if isinstance(model, nn.Module) else None
    state = process_state()
    with pytest.raises(error, match=message):
        prunegraph.prune(model, inputs, budget=budget, **options)
    assert before == (snapshot(model) if isinstance(model, nn.Module) else None)
    assert process_state() == state


def check_pruned(model: nn.Module, inputs: Any = SIGNAL) -> prunegraph.PruningResult:
    """It is pruned, and the network is not changed."""
    before = snapshot(model)
    result = prunegraph.prune(model, inputs, budget=HALF)
    assert snapshot(model) == before
    assert result.report.pruned.parameters < result.report.dense.parameters
    assert result.report.verification.difference < 1e-5
    return result


@pytest.mark.parametrize("model", [None, "network", nn.ReLU, torch.relu, network().state_dict()], ids=type)
def test_something_else_than_a_network(model: Any) -> None:
    check_refused(model, UnsupportedModelError, r"expected a torch.nn.Module, got \w+")


@pytest.mark.parametrize(
    "model", [nn.Identity(), nn.Sequential(nn.ReLU(), nn.Flatten()), nn.BatchNorm1d(1, affine=False)]
)
def test_a_network_without_parameters(model: nn.Module) -> None:
    check_refused(model, UnsupportedModelError, "has no parameters: there is nothing to prune")


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.randn(2, 3, 16), CaptureError, "expected input.* to have 1 channels, but got 3"),
        (torch.randn(16), CaptureError, "2D .unbatched. or 3D .batched. input"),
        (SIGNAL.long(), CaptureError, "should be the same"),
        (SIGNAL.double(), CaptureError, "should be the same"),
        ((SIGNAL, SIGNAL), CaptureError, "takes 2 positional arguments but 3 were given"),
        ({"mixture": SIGNAL}, CaptureError, "unexpected keyword argument 'mixture'"),
        (SIGNAL.to("meta"), InputError, "on the meta device.*give real values"),
        (SIGNAL.numpy(), InputError, "type ndarray are not understood; give a tensor"),
        (None, InputError, "type NoneType are not understood"),
        ((), InputError, "hold no tensor"),
        (3, InputError, "type int are not understood"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:20]),
)
def test_inputs_that_do_not_fit(inputs: Any, error: type[Exception], message: str) -> None:
    check_refused(network(), error, message, inputs)


def test_inputs_that_are_not_numbers_are_no_fault() -> None:
    check_pruned(network(), SIGNAL * float("nan"))


def test_an_empty_batch() -> None:
    check_pruned(network(), SIGNAL[:0])
    check_refused(
        network(), BudgetError, "nothing would be pruned: the network has 0 MACs", SIGNAL[:0], Budget(macs=0.5)
    )


def raises(x: Tensor) -> Tensor:
    raise NotImplementedError("not today")


def test_a_network_that_raises() -> None:
    check_refused(
        Around(raises), CaptureError, r"in \(network\) at .*test_networks.py:\d+: NotImplementedError: not today"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("criterion", ["l1", "random"])
def test_weights_that_are_not_numbers(value: float, criterion: str) -> None:
    model = network()
    with torch.no_grad():
        model[3].weight[0, 2] = value
    check_refused(model, CriterionError, "NaN or infinite values in weight '3.weight'", criterion=criterion)


def test_tensors_on_the_meta_device() -> None:
    check_refused(network().to("meta"), UnsupportedModelError, r"0.weight .* is on the meta device; load the weights")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_network_on_several_devices() -> None:
    model = network()
    model[3].cuda()
    check_refused(model, UnsupportedModelError, r"lies on several devices \(cpu, cuda:0\); move it to one")


def test_a_module_that_is_not_initialised() -> None:
    model = nn.Sequential(nn.LazyConv1d(8, 1), nn.Conv1d(8, 1, 1))
    check_refused(model, UnsupportedModelError, "is not initialised yet; run the network once")
    model(SIGNAL)
    check_pruned(model)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_network() -> None:
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 16)), {nn.Linear})
    with pytest.raises(UnsupportedModelError, match="is a quantised module; prune first and quantise the result"):
        prunegraph.prune(model, SIGNAL, budget=HALF)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.parametrize(
    "compiled",
    [torch.jit.script, lambda m: torch.jit.trace(m.eval(), SIGNAL), lambda m: torch.compile(m, backend="eager")],
)
def test_a_compiled_network(compiled: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(UnsupportedModelError, match="is compiled; give the module it was made from"):
        prunegraph.prune(compiled(network()), SIGNAL, budget=HALF)


def test_a_pruned_network_is_pruned_again() -> None:
    once = check_pruned(network())
    twice = check_pruned(once.model)
    assert [len(kept) for kept in twice.plan.kept.values()] == [2]


def test_a_network_pruned_by_masks_keeps_them() -> None:
    model = network()
    torch_prune.l1_unstructured(model[0], "weight", 0.5)
    model(SIGNAL)
    pruned = check_pruned(model).model
    assert pruned[0].weight_mask.shape == pruned[0].weight_orig.shape == (4, 1, 3)


def weight_norm(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(layer)


@pytest.mark.parametrize(
    "wrap",
    [
        weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
    ],
)
def test_parametrised_weights(wrap: Callable[[nn.Module], None]) -> None:
    """A weight whose making cannot be followed keeps its width; the other group is pruned."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 8, 3), nn.Conv1d(8, 8, 1), nn.Conv1d(8, 6, 1), nn.Conv1d(6, 1, 1))
    wrap(model[1])
    check_pruned(model)


def test_wrapped_in_data_parallel() -> None:
    assert isinstance(check_pruned(nn.DataParallel(network())).model, nn.DataParallel)


def test_traced_by_fx() -> None:
    check_pruned(torch.fx.symbolic_trace(network()))


def test_a_network_that_returns_no_tensor() -> None:
    class Silent(Around):
        def forward(self, x: Tensor) -> str:
            super().forward(x)
            return "done"

    check_refused(Silent(torch.relu), CaptureError, "returned str, in which there is no tensor; return a tensor")


def test_a_network_whose_output_needs_no_layer() -> None:
    class Idle(Around):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    check_refused(Idle(torch.relu), BudgetError, "there is nothing to prune in this network")


def test_a_network_of_one_layer() -> None:
    check_refused(nn.Linear(16, 4), BudgetError, r"every channel is locked \(weight\[0\]: the network's output keeps")


def test_a_module_used_twice_is_pruned_once() -> None:
    layer = nn.Conv1d(8, 8, 1)
    model = nn.Sequential(nn.Conv1d(1, 8, 1), layer, nn.ReLU(), layer, nn.Conv1d(8, 1, 1))
    pruned = check_pruned(model).model
    assert pruned[1] is pruned[3]
    assert pruned[1].weight.shape == (4, 4, 1)


def test_parameters_that_are_never_used_stay() -> None:
    class WithHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = network(), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    model = WithHead()
    result = check_pruned(model)
    assert result.report.unused == {"head.weight", "head.bias", "body.1.num_batches_tracked"}
    assert torch.equal(result.model.head.weight, model.head.weight)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def profiled(x: Tensor) -> Tensor:
    with torch.profiler.record_function("middle"):
        return x.relu()


FOLLOWED: dict[str, Callable[[Tensor], Any]] = {
    "checkpoint": lambda x: checkpoint(torch.relu, x, use_reentrant=False),
    "autograd function": StraightThrough.apply,
    "compiled function": torch.compile(torch.relu, backend="eager"),
    "profiled": profiled,
    "inference mode": lambda x: torch.inference_mode()(torch.relu)(x),
    "number read out": lambda x: x / x.abs().max().item(),
    "data": lambda x: x.data * 2,
    "written in place": lambda x: torch.add(x, 1, out=torch.empty_like(x)),
    "chosen by value": lambda x: x.relu() if x.sum() > -1e9 else x[:, :4],
    "dropout in training only": lambda x: F.dropout(x, 0.5, False),
}


@pytest.mark.parametrize("way", FOLLOWED)
def test_code_that_is_followed(way: str) -> None:
    check_pruned(Around(FOLLOWED[way]))


LOCKED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "dropout": (lambda x: F.dropout(x, 0.5, True), "a random number is drawn for each element"),
    "bernoulli": (lambda x: torch.bernoulli(x.sigmoid()), "a random number is drawn for each element"),
    "noise": (lambda x: x + torch.rand_like(x), "rand_like"),
    "sorted": (lambda x: x.sort(dim=1).values, "positions along this dimension"),
    "through numpy": (
        lambda x: x + torch.from_numpy(x.detach().numpy().mean(1, keepdims=True)),
        "the code reads the values as numbers, by their places",
    ),
}


@pytest.mark.parametrize("way", LOCKED)
def test_code_that_fixes_its_channels(way: str) -> None:
    function, reason = LOCKED[way]
    check_refused(Around(function), BudgetError, f"every channel is locked .*{reason}")


@pytest.mark.parametrize("budget", [None, 0.5, {"macs": 0.5}, "half"], ids=str)
def test_something_else_than_a_budget(budget: Any) -> None:
    check_refused(network(), BudgetError, r"expected a Budget, such as Budget\(macs=0.5\)", budget=budget)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(macs=1e-9), "cannot be met: this network can go from 1,024 macs down to 128 macs"),
        (Budget(params=1.5), "cannot be met"),
        (Budget(macs=10**9), "nothing would be pruned"),
        (Budget(ratio=0.01), "nothing would be pruned"),
        (Budget(ratio=0.5, exclude="*"), "nothing would be pruned"),
    ],
    ids=str,
)
def test_budgets_out_of_reach(budget: Budget, message: str) -> None:
    check_refused(network(), BudgetError, message, budget=budget)


def test_a_budget_of_everything_gives_the_network_itself() -> None:
    model = network()
    result = prunegraph.prune(model, SIGNAL, budget=Budget(macs=1))
    assert torch.equal(result.model.eval()(SIGNAL), model.eval()(SIGNAL))
    assert result.model is not model


@pytest.mark.parametrize("conditions", [{"include": "decoder"}, {"exclude": "x.*"}, {"pin": {"enc": 3}}], ids=str)
def test_names_that_match_nothing(conditions: Any) -> None:
    check_refused(network(), InputError, "matches no channel group", budget=Budget(ratio=0.5, **conditions))


class Given:
    """A criterion that returns what it is told to."""

    name, needs = "given", frozenset()

    def __init__(self, scores: Callable[[int], Any]) -> None:
        self.scores = scores

    def supports(self, graph: Any, context: Any) -> tuple[str, ...]:
        return ()

    def score(self, graph: Any, weights: Any, context: Any) -> dict[str, Any]:
        return {group.name: self.scores(group.width) for group in graph.groups}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda n: torch.full((n,), float("nan")), r"'0.weight\[0\]': channel 0 is nan"),
        (lambda n: torch.ones(n - 1), r"expected shape \(8,\), one score per channel, got \(7,\)"),
        (lambda n: [1.0] * n, "expected a tensor of real numbers, got list"),
    ],
)
def test_a_criterion_that_returns_something_else(scores: Callable[[int], Any], message: str) -> None:
    check_refused(
        network(), CriterionError, f"criterion 'given' returned wrong scores: .*{message}", criterion=Given(scores)
    )


@pytest.mark.parametrize("criterion", [5, Given, object()], ids=["number", "class", "object"])
def test_something_else_than_a_criterion(criterion: Any) -> None:
    check_refused(network(), CriterionError, "expected a criterion or the name of one", criterion=criterion)


def test_a_criterion_that_nobody_knows() -> None:
    check_refused(network(), CriterionError, "no criterion is named 'l3'.*there are: .*l1", criterion="l3")


def test_an_optimizer_of_another_network_stops_before_anything_is_given_back() -> None:
    model = network()
    check_refused(
        model,
        prunegraph.SurgeryError,
        "not one of the network's",
        optimizer=torch.optim.SGD(network().parameters(), lr=0.1),
    )


KEPT = {
    "strange group": ({"1.weight[0]": [0]}, r"no channel group named '1.weight\[0\]'"),
    "none stays": ({"0.weight[0]": []}, "would lose all of its 8 channels; keep at least one"),
    "beyond": ({"0.weight[0]": [0, 100, 101]}, "has channels 0 to 7, not 101"),
    "negative": ({"0.weight[0]": [-1]}, "has channels 0 to 7, not -1"),
    "fraction": ({"0.weight[0]": [1.5]}, "listed by number; 1.5 is none"),
    "mask": ({"0.weight[0]": [True, False]}, "listed by number; True is none"),
    "numpy mask": ({"0.weight[0]": np.array([True, False])}, "is none"),
    "text": ({"0.weight[0]": "12"}, "must be listed, not '12'"),
    "number": ({"0.weight[0]": 3}, "must be listed, not 3"),
    "list": ([0, 1], "expected a dict"),
}


@pytest.mark.parametrize("fault", KEPT)
def test_choices_that_are_none(fault: str) -> None:
    kept, message = KEPT[fault]
    with pytest.raises(prunegraph.PlanError, match=message):
        prunegraph.build_graph(network(), SIGNAL).plan(kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [(1, 4), range(1, 5, 3), np.array([4, 1]), torch.tensor([1, 4]), {4, 1}, [1, 1, 4]])
def test_choices_of_any_kind_of_number(numbers: Any) -> None:
    assert prunegraph.build_graph(network(), SIGNAL).plan({"0.weight[0]": numbers}).kept == {"0.weight[0]": (1, 4)}


def test_plans_of_another_network() -> None:
    model, other = network(), Around(torch.relu)
    graph = prunegraph.build_graph(other, SIGNAL)
    plan = graph.plan({"a.weight[0]": [0]})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(prunegraph.PlanError, match=r"made for another network: a.weight has shape"):
        prunegraph.apply(model, plan)
    with pytest.raises(prunegraph.VerificationError, match="made for another network"):
        prunegraph.verify(model, model, plan, SIGNAL)
    with pytest.raises(prunegraph.PlanError, match="made for another network"):
        prunegraph.build_graph(model, SIGNAL).cost(plan)
    with pytest.raises(prunegraph.PlanError, match="expected a PruningPlan, got dict"):
        prunegraph.apply(model, plan.kept_indices())  # type: ignore[arg-type]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"schema_version": 2}', '{"schema_version": 99}', '{"schema_version": 2, "kept": 3}'],
)
def test_texts_that_are_no_plans(text: str) -> None:
    with pytest.raises(prunegraph.PlanError, match=r"(no pruning plan|schema version 99)"):
        prunegraph.PruningPlan.from_json(text)


def test_a_plan_survives_its_text() -> None:
    graph = prunegraph.build_graph(network(), SIGNAL)
    plan = graph.plan({"0.weight[0]": [0, 3]})
    again = prunegraph.PruningPlan.from_json(plan.to_json())
    assert again == plan
    assert prunegraph.verify(network(), prunegraph.apply(network(), again), again, SIGNAL).difference < 1e-6


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_a_scripted_part_gets_advice_that_can_be_followed() -> None:
    model = nn.Sequential(nn.Conv1d(1, 4, 1), torch.jit.script(nn.Conv1d(4, 1, 1)))
    with pytest.raises(UnsupportedModelError, match="1 is scripted; have PYTORCH_JIT=0"):
        prunegraph.build_graph(model, torch.randn(1, 1, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": None}, "seed=None must be a whole number"),
        ({"seed": 2**64}, "must be a whole number from 0"),
        ({"seed": 0.5}, "must be a whole number"),
        ({"data": 5}, "data=5 must be batches"),
        ({"loss": "mse", "criterion": "l1"}, "loss='mse' must be a function"),
        ({"profile": 3}, "expected a LatencyProfile, got 3; LatencyProfile.load"),
    ],
    ids=str,
)
def test_options_of_another_kind(options: dict[str, Any], message: str) -> None:
    check_refused(network(), InputError, message, **options)


def test_a_network_made_and_pruned_in_inference_mode() -> None:
    with torch.inference_mode():
        made = network()
        result = prunegraph.prune(made, torch.randn(2, 1, 40), budget=HALF)
    assert result.report.pruned.macs <= 0.5 * result.report.dense.macs


@pytest.mark.parametrize("given", [None, "x", 5])
def test_something_else_than_a_network_to_load_into(given: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the dense network or a function that makes it"):
        prunegraph.load(given, tmp_path)


def test_a_network_alone_is_no_result_to_save(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected what prunegraph\.prune returned, got Sequential.*replace"):
        prunegraph.save(network(), tmp_path / "saved")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_something_else_than_a_network_to_optimize() -> None:
    with pytest.raises(UnsupportedModelError, match=r"expected a torch\.nn\.Module, got str"):
        prunegraph.optimize("network", torch.zeros(1))  # type: ignore[arg-type]
