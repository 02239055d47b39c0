"""What is right passes; every planted fault is caught, and the first place where it shows is named."""

import copy
import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import prunegraph
from prunegraph import Budget, DependencyGraph, PruningPlan, VerificationError, apply, build_graph, prune, verify
from prunegraph.verification.differences import relative_difference
from tests.dependency.cases import CASES, SIGNAL, random_plan

TRIALS = 100
FAULTY = ["chain", "split", "heads", "transposed", "gated", "attention", "tied", "masking", "weight norm", "flatten"]
"""Networks in which the faults are planted, in turn."""


def subject(name: str, seed: int = 0) -> tuple[nn.Module, nn.Module, PruningPlan, Any, DependencyGraph]:
    model, x = CASES[name].example()
    graph = build_graph(model, x)
    plan = random_plan(graph, seed)
    return model, apply(model, plan), plan, x, graph


@pytest.fixture(scope="module")
def subjects() -> dict[str, tuple[nn.Module, nn.Module, PruningPlan, Any, DependencyGraph]]:
    return {name: subject(name) for name in FAULTY}


@pytest.mark.parametrize("name", CASES)
def test_what_is_right_passes(name: str) -> None:
    model, pruned, plan, x, graph = subject(name)
    report = verify(model, pruned, plan, x, graph=graph)
    assert report.difference <= report.tolerance == 1e-10
    names = ["plan", "weights", "cost", "output", "backward", "training", "other inputs"]
    assert [check.name for check in report.checks] == names
    assert report == verify(model, pruned, plan, x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_tolerances_follow_the_precision(dtype: torch.dtype, tolerance: float) -> None:
    model, x = CASES["chain"].example()
    model, x = model.to(dtype), x.to(dtype)
    plan = random_plan(build_graph(model, x), 0)
    assert verify(model, apply(model, plan), plan, x).tolerance == tolerance


def named_node(graph: DependencyGraph, message: str) -> torch.fx.Node:
    """The node that the message names."""
    found = re.search(r"first diverging node: (\S+) \((\S+)\) in (.*)", message)
    assert found, message
    node = next(node for node in graph.trace.graph.nodes if node.name == found[1])
    assert str(node.target) == found[2]
    assert found[3] == str(graph.trace.site(node))
    return node


def readers(graph: DependencyGraph, tensor: str) -> list[torch.fx.Node]:
    """Nodes that read a tensor under any of its names."""
    for node in graph.trace.graph.nodes:
        spec = graph.trace.tensors.get(node.name)
        if spec is not None and tensor in (spec.name, *spec.aliases):
            return list(node.users)
    raise AssertionError(tensor)


def check_caught(graph: DependencyGraph, tensors: list[str], act: Callable[[], Any]) -> None:
    """It raises, and names the first node that reads one of the tensors."""
    with pytest.raises(VerificationError) as caught:
        act()
    order = {node: step for step, node in enumerate(graph.trace.graph.nodes)}
    first = min((node for tensor in tensors for node in readers(graph, tensor)), key=order.__getitem__)
    assert named_node(graph, str(caught.value)) is first


@pytest.mark.parametrize("trial", range(TRIALS))
def test_a_wrong_index_in_a_plans_tensors_is_caught(trial: int, subjects: dict[str, Any]) -> None:
    model, pruned, plan, x, graph = subjects[FAULTY[trial % len(FAULTY)]]
    generator = np.random.default_rng(trial)
    name = generator.choice(sorted(plan.tensors))
    dim = int(generator.choice(sorted(plan.tensors[name])))
    indices = list(plan.tensors[name][dim])
    place = int(generator.integers(len(indices)))
    size = plan.shapes[name][dim]
    indices[place] = int(generator.choice([i for i in [-1, *range(size + 3)] if i != indices[place]]))
    tensors = {**plan.tensors, name: {**plan.tensors[name], dim: tuple(indices)}}
    check_caught(
        graph, [name], lambda: verify(model, pruned, dataclasses.replace(plan, tensors=tensors), x, graph=graph)
    )


@pytest.mark.parametrize("trial", range(TRIALS))
def test_a_wrong_channel_in_a_plan_is_caught(trial: int, subjects: dict[str, Any]) -> None:
    model, pruned, plan, x, graph = subjects[FAULTY[trial % len(FAULTY)]]
    generator = np.random.default_rng(trial)
    group = graph.groups[generator.integers(len(graph.groups))]
    kept = list(plan.kept[group.name])
    kept[generator.integers(len(kept))] = int(
        generator.choice([c for c in range(-2, group.width + 3) if c not in kept])
    )
    broken = dataclasses.replace(plan, kept={**plan.kept, group.name: tuple(kept)})
    check_caught(graph, [m.tensor for m in group.members], lambda: verify(model, pruned, broken, x, graph=graph))


@pytest.mark.parametrize("trial", range(TRIALS))
def test_a_network_of_another_plan_is_caught(trial: int, subjects: dict[str, Any]) -> None:
    """A right plan and a right network, which do not belong together."""
    model, _, plan, x, graph = subjects[FAULTY[trial % len(FAULTY)]]
    other = random_plan(graph, trial + 1)
    differing = [name for name in plan.tensors if plan.tensors[name] != other.tensors[name]]
    if not differing:
        assert other == plan
        return
    check_caught(graph, differing, lambda: verify(model, apply(model, other), plan, x, graph=graph))


@pytest.mark.parametrize("trial", range(TRIALS))
def test_one_changed_element_is_caught(trial: int, subjects: dict[str, Any]) -> None:
    model, pruned, plan, x, graph = subjects[FAULTY[trial % len(FAULTY)]]
    broken = copy.deepcopy(pruned)
    generator = np.random.default_rng(trial)
    tensors = {n: t for n, t in broken.state_dict().items() if t.is_floating_point() and t.numel()}
    name = str(generator.choice(sorted(tensors)))
    flat = tensors[name].view(-1)
    place = int(generator.integers(flat.numel()))
    change = [lambda v: v + 1e-12, lambda v: -v, lambda v: v * float("nan"), lambda v: v.nextafter(v + 1)]
    flat[place] = change[trial % 4](flat[place])
    check_caught(graph, [name], lambda: verify(model, broken, plan, x, graph=graph))


@pytest.mark.parametrize("trial", range(TRIALS))
def test_two_swapped_channels_are_caught(trial: int, subjects: dict[str, Any]) -> None:
    generator = np.random.default_rng(trial)
    model, pruned, plan, x, graph = subjects[FAULTY[trial % len(FAULTY)]]
    broken = copy.deepcopy(pruned)
    candidates = [
        (name, dim)
        for name, tensor in broken.state_dict().items()
        for dim in plan.tensors.get(name, {})
        if tensor.shape[dim] > 1 and len(torch.unique(tensor)) == tensor.numel()
    ]
    name, dim = candidates[generator.integers(len(candidates))]
    tensor = broken.state_dict()[name]
    order = np.arange(tensor.shape[dim])
    a, b = generator.choice(tensor.shape[dim], 2, replace=False)
    order[[a, b]] = order[[b, a]]
    tensor.copy_(tensor.index_select(dim, torch.from_numpy(order)).clone())
    check_caught(graph, [name], lambda: verify(model, broken, plan, x, graph=graph))


def test_the_first_of_several_faults_is_named() -> None:
    model, pruned, plan, x, graph = subject("chain")
    with torch.no_grad():
        for parameter in (pruned.b.weight, pruned.act.weight, pruned.norm.running_var):
            parameter.add_(1e-9)
    check_caught(graph, ["norm.running_var"], lambda: verify(model, pruned, plan, x, graph=graph))


@pytest.mark.parametrize(
    ("before", "after"), [(0.0, float("nan")), (float("inf"), torch.finfo(torch.float64).max), (0.0, -0.0)]
)
def test_weights_are_compared_bit_by_bit(before: float, after: float) -> None:
    model, x = CASES["chain"].example()
    graph = build_graph(model, x)
    with torch.no_grad():
        model.b.bias[0] = before
    plan = graph.plan({"a.weight[0]": [0, 1]})
    pruned = apply(model, plan)
    with torch.no_grad():
        pruned.b.bias[0] = after
    check_caught(graph, ["b.bias"], lambda: verify(model, pruned, plan, x, graph=graph))


def wrong_eps(pruned: nn.Module) -> None:
    pruned.norm.eps = 0.1


def wrong_hook(pruned: nn.Module) -> None:
    pruned.act.register_forward_hook(lambda module, args, output: output.roll(1, dims=1))


def wrong_activation(pruned: nn.Module) -> None:
    pruned.act = nn.ReLU()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (wrong_eps, r"first diverging node: \S+ \(aten.batch_norm.default\) in norm at"),
        (wrong_hook, "take different paths from here"),
        (wrong_activation, r"act.weight of the pruned network is missing; first diverging node: .*aten.prelu"),
    ],
)
def test_what_computes_something_else_is_caught(fault: Callable[[nn.Module], None], message: str) -> None:
    model, pruned, plan, x, graph = subject("chain")
    fault(pruned)
    with pytest.raises(VerificationError, match=message):
        verify(model, pruned, plan, x, graph=graph)


def test_a_wrong_attribute_is_caught() -> None:
    model, pruned, plan, x, graph = subject("heads")
    pruned.width = 4
    with pytest.raises(VerificationError, match=r"the pruned network does not run: [^Z]*view"):
        verify(model, pruned, plan, x, graph=graph)
    wrong = tuple(dataclasses.replace(a, new=3) if a.name == "width" else a for a in plan.attributes)
    with pytest.raises(VerificationError, match=r"the plan sets \.?width wrongly"):
        verify(model, pruned, dataclasses.replace(plan, attributes=wrong), x, graph=graph)


def test_a_network_that_does_not_run_gets_advice_that_fits() -> None:
    """The example inputs are right, since the original runs on them."""
    model, pruned, plan, x, graph = subject("heads")
    pruned.width = 4
    with pytest.raises(VerificationError) as caught:
        verify(model, pruned, plan, x, graph=graph)
    message = str(caught.value)
    assert "Check that the example inputs" not in message
    (line,) = [text.strip() for text in message.splitlines() if text.startswith("    ")]
    at = int(re.findall(r"\.py:(\d+)", message)[0])
    assert graph.groups_at(inspect.getsourcefile(type(model)), at)
    assert line in inspect.getsource(type(model))
    assert all(f"'{name}'" in message for name in graph.groups_at(inspect.getsourcefile(type(model)), at))
    assert graph.groups_at("elsewhere.py", at) == ()


def test_a_broken_tie_is_caught() -> None:
    model, pruned, plan, x, graph = subject("tied")
    pruned.last.weight = nn.Parameter(pruned.table.weight.detach().clone())
    with pytest.raises(VerificationError, match="parameters, the pruned network has"):
        verify(model, pruned, plan, x, graph=graph)


def test_a_tensor_too_many_is_caught() -> None:
    model, pruned, plan, x, graph = subject("chain")
    pruned.register_buffer("extra", torch.zeros(1))
    with pytest.raises(VerificationError, match="extra of the pruned network is not in the original"):
        verify(model, pruned, plan, x, graph=graph)


def test_a_plan_of_another_network_is_caught() -> None:
    model, pruned, _, x, graph = subject("chain")
    with pytest.raises(VerificationError, match="the plan does not fit the network"):
        verify(model, pruned, subject("cat")[2], x, graph=graph)


class Picky(nn.Module):
    """Different code for other inputs: a width that is written there is only met by these."""

    def __init__(self, other: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 1, 1)
        self.other = other

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y.view(-1, 6, x.shape[-1]) if self.other(x) else y)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("batch of 2", lambda x: x.shape[0] > SIGNAL[0]),
        ("shorter input", lambda x: x.shape[-1] < SIGNAL[-1]),
        ("longer input", lambda x: x.shape[-1] > SIGNAL[-1]),
    ],
    ids=["batch", "shorter", "longer"],
)
def test_other_inputs_are_tried(name: str, other: Callable[[Tensor], bool]) -> None:
    model, x = Picky(other), torch.randn(SIGNAL)
    plan = build_graph(model, x).plan({"a.weight[0]": [0, 1]})
    with pytest.raises(VerificationError, match=f"fails on a {name}, which the original accepts"):
        verify(model, apply(model, plan), plan, x)


class Streaming(nn.Module):
    """Goes on from the state that the call before left."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.rnn, self.out = nn.Linear(1, 6), nn.GRU(6, 5, batch_first=True), nn.Linear(5, 1)
        self.state: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        hidden, state = self.rnn(self.into(x.transpose(1, 2)), self.state)
        self.state = state.detach()
        return self.out(hidden).transpose(1, 2)


def test_what_one_call_leaves_behind_does_not_meet_the_next_check() -> None:
    model, x = Streaming(), torch.randn(SIGNAL)
    plan = build_graph(model, x).plan({"into.weight[0]": [0, 1]})
    report = verify(model, apply(model, plan), plan, x)
    assert report.checks[-1].detail.startswith("runs on batch of 2")
    assert model.state is None


def test_an_original_that_takes_one_shape_only_is_no_fault() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(16, 6), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x.view(2, 16)))

    model, x = Fixed(), torch.randn(2, 1, 16)
    plan = build_graph(model, x).plan({"a.weight[0]": [0, 1]})
    report = verify(model, apply(model, plan), plan, x)
    assert report.checks[-1].detail == "the original accepts inputs of the example's shape only"


def test_an_original_without_backward_pass_is_no_fault() -> None:
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).sigmoid()
            z = self.b(y)
            y.add_(1)  # spoils what the backward pass of the sigmoid needs
            return z

    model, x = Once(), torch.randn(2, 3)
    plan = build_graph(model, x).plan({"a.weight[0]": [0, 1]})
    details = {check.name: check.detail for check in verify(model, apply(model, plan), plan, x).checks}
    assert details["backward"] == "the original has no backward pass"


class Outputs(nn.Module):
    """Outputs of other types than floats, and with infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.b(self.a(x))
        return {
            "loud": y > 0,
            "best": y.argmax(-1),
            "log": y.relu().log(),
            "ratio": torch.zeros_like(y) / torch.zeros_like(y),
            "spectrum": torch.complex(y, y),
        }


def test_outputs_of_any_type_are_compared() -> None:
    model, x = Outputs().double(), torch.randn(5, 3, dtype=torch.float64)
    plan = build_graph(model, x).plan({"a.weight[0]": [0, 1, 4]})
    assert verify(model, apply(model, plan), plan, x).difference < 1e-10


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([float("inf"), 4.0], [float("inf"), 4.0], 0.0),
        ([float("nan"), 4.0], [float("nan"), 2.0], 1.0),
        ([0.0, 1e-3], [0.0, 0.0], 1e-3),
        ([float("inf")], [float("-inf")], float("inf")),
        ([float("nan")], [1.0], float("nan")),
    ],
)
def test_relative_differences_by_hand(found: list[float], expected: list[float], difference: float) -> None:
    assert relative_difference([torch.tensor(found)], [torch.tensor(expected)]) == pytest.approx(
        difference, nan_ok=True
    )


class Counting(nn.Module):
    """Counts its runs, and keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)
        self.runs, self.last = 0, None
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.last = x
        self.seen += 1
        return self.b(self.norm(self.a(x)))


def test_both_networks_are_left_alone() -> None:
    model, x = Counting(), torch.randn(4, 3)
    model.train()
    model.norm.eval()
    plan = build_graph(model, x).plan({"a.weight[0]": [0, 1, 4]})
    pruned = apply(model, plan)
    pruned.b.weight.grad = torch.ones(1, 3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    verify(model, pruned, plan, x)
    for network in (model, pruned):
        flags = {path: module.training for path, module in network.named_modules()}
        assert flags == {"": True, "a": True, "norm": False, "b": True}
        assert (network.runs, network.last, network.seen.item()) == (0, None, 0)
        assert network.norm.num_batches_tracked == 0
    assert torch.equal(pruned.b.weight.grad, torch.ones(1, 3))
    assert [p.grad for p in model.parameters()] == [None] * 6
    assert torch.equal(torch.get_rng_state(), before)


class Gained(nn.Module):
    """Makes nothing of nothing, whatever its gain."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 6, 3, bias=False), nn.Conv1d(6, 1, 3, bias=False)
        self.gain = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.last(torch.tanh(self.first(x)))


@pytest.mark.parametrize("example", [torch.zeros(1, 1, 20), {"x": torch.zeros(2, 1, 20)}], ids=["tensor", "keyword"])
def test_silence_proves_nothing_so_noise_is_heard(example: Any) -> None:
    model = Gained()
    result = prune(model, example, criterion="l1", budget=Budget(ratio=0.5))
    result.model.gain = 2.0
    with pytest.raises(VerificationError, match="differs"):
        verify(model, result.model, result.plan, example)


class Standardised(nn.Module):
    """Divides by the deviation over channels, of which there is none of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 4, 1), nn.Conv1d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y / y.std(1, keepdim=True))


@pytest.mark.filterwarnings("ignore:std")
def test_a_network_that_gives_no_numbers_is_no_right_one() -> None:
    model, x = Standardised(), torch.randn(2, 1, 20)
    graph = build_graph(model, x)
    for kept in (range(2), range(1)):
        plan = graph.plan({"first.weight[0]": kept})
        pruned = apply(model, plan)
        assert bool(pruned(x).isfinite().all()) == (len(kept) == 2)
        if len(kept) == 2:
            verify(model, pruned, plan, x, graph=graph)
            continue
        with pytest.raises(VerificationError, match="infinite or not numbers; first: std") as caught:
            verify(model, pruned, plan, x, graph=graph)
        assert caught.value.groups == ("first.weight[0]",)


class Hidden(nn.Module):
    """Divides by a number of channels that cannot be followed; what is wrong then is small beside the rest."""

    def __init__(self, give: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.give = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 1, 1), give

    def forward(self, x: Tensor) -> Any:
        y = self.first(x)
        return self.give(x, self.last(y) + y.sum(1, keepdim=True) / len(range(y.shape[1])))


SMALL: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "beside a large output": lambda x, y: (y, 1e7 * x),
    "beside codes": lambda x, y: (y, torch.full(x.shape, 10**7)),
    "in a residual": lambda x, y: x + 1e-7 * y,
}


@pytest.mark.parametrize("give", SMALL.values(), ids=SMALL)
def test_an_error_cannot_hide(give: Callable[[Tensor, Tensor], Any]) -> None:
    model, x = Hidden(give), torch.randn(2, 1, 20)
    graph = build_graph(model, x)
    plan = graph.plan({"first.weight[0]": range(3)})
    with pytest.raises(VerificationError, match="a value within the pruned network is not that") as caught:
        verify(model, apply(model, plan), plan, x, graph=graph)
    assert caught.value.groups == ("first.weight[0]",)


class Amplified(nn.Module):
    """Makes much of rounding: large phases."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(4, 60), nn.LayerNorm(60), nn.Linear(60, 1)
        self.weight, self.plain = nn.Parameter(torch.randn(4, 4, dtype=dtype)), torch.eye(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first((x @ self.weight).abs() @ self.plain @ torch.eye(4)))
        return self.last(torch.sin(1e4 * y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_rounding_that_a_network_makes_much_of_is_no_fault(dtype: torch.dtype) -> None:
    model, x = Amplified(dtype), torch.randn(2, 20, 4, dtype=dtype)
    graph = build_graph(model, x)
    plan = graph.plan({"first.weight[0]": range(0, 60, 3)})
    report = verify(model, apply(model, plan), plan, x, graph=graph)
    assert report.difference <= report.tolerance == 1e-10


class Filled(nn.Module):
    """Makes room first, and writes into it later."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        room = torch.empty_like(y := self.first(x))
        room[..., ::2], room[..., 1::2] = y[..., ::2].tanh(), y[..., 1::2]
        return self.last(room)


class Chance(TorchDispatchMode):
    """Memory is never new: something else stands in it each time."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.normal_(generator=self.noise) if "empty" in str(func) else result


def test_what_stands_in_new_memory_by_chance_is_no_fault() -> None:
    model, x = Filled(), torch.randn(2, 1, 20)
    graph = build_graph(model, x)
    plan = graph.plan({"first.weight[0]": range(3)})
    with Chance():
        verify(model, apply(model, plan), plan, x, graph=graph)


def test_an_output_without_numbers_proves_nothing() -> None:
    model, x = Hidden(lambda x, y: y * float("nan")), torch.randn(2, 1, 20)
    graph = build_graph(model, x)
    plan = graph.plan({})
    with pytest.raises(VerificationError, match="no finite number"):
        verify(model, apply(model, plan), plan, x, graph=graph)


class Contracted(nn.Module):
    """Three factors in the order that is the cheaper one, as opt_einsum would choose."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inner, self.outer = nn.Linear(3, 12), nn.Linear(12, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        width = int(str(self.inner.weight.shape[0]))  # which hides what the order depends on, as opt_einsum does
        path = [1, 2, 0, 1] if width > 6 else [0, 1, 0, 1]
        factors = [self.first(x), self.inner.weight, self.outer.weight]
        return torch._VF.einsum("bi,hi,oh->bo", factors, path=path)  # type: ignore[attr-defined]


def test_another_order_of_contraction_is_no_other_network() -> None:
    model, example = Contracted(), torch.randn(4, 3)
    result = prunegraph.prune(model, example, criterion="l1", budget=prunegraph.Budget(ratio=0.5))
    assert result.model.inner.weight.shape == (4, 6)
    (cost,) = [check.detail for check in result.report.verification.checks if check.name == "cost"]
    assert cost.endswith("MACs, einsum reordered")
