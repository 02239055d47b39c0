"""The exact masked program against the pruned network, against the network itself, and against finite differences."""

import pytest
import torch
from torch import Tensor, nn

from prunegraph import DependencyGraph, InputError, MaskedProgram, PruningPlan, apply, build_graph
from tests.dependency.cases import CASES, FRAMES, SIGNAL, random_plan


def masks_of(graph: DependencyGraph, plan: PruningPlan) -> dict[str, Tensor]:
    """0 for what the plan removes, 1 for what it keeps."""
    masks = {group.name: torch.zeros(group.width, dtype=torch.float64) for group in graph.groups}
    for name, kept in plan.kept.items():
        masks[name][list(kept)] = 1
    return masks


def interior_masks(graph: DependencyGraph) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(g.width, generator=generator, dtype=torch.float64) * 0.7 + 0.3 for g in graph.groups)


@torch.no_grad()
def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_masks_of_zero_and_one_give_the_pruned_network(name: str, seed: int) -> None:
    model, x = CASES[name].example()
    graph = build_graph(model, x)
    plan = random_plan(graph, seed)
    masked, pruned = MaskedProgram(graph)(masks_of(graph, plan), x), apply(model, plan)(x)
    assert relative(masked, pruned) < 1e-10
    assert relative(model(x), pruned) > 1e-6


@pytest.mark.parametrize("name", CASES)
def test_masks_of_one_give_the_network_itself(name: str) -> None:
    model, x = CASES[name].example()
    assert relative(MaskedProgram(build_graph(model, x))({}, x), model(x)) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_finite_differences(name: str) -> None:
    model, x = CASES[name].example()
    graph = build_graph(model, x)
    program = MaskedProgram(graph)
    names = [group.name for group in graph.groups]

    def loss(*masks: Tensor) -> Tensor:
        return program(dict(zip(names, masks, strict=True)), x).square().mean()

    masks = [mask.requires_grad_() for mask in interior_masks(graph)]
    assert torch.autograd.gradcheck(loss, masks, eps=1e-7, atol=1e-6, rtol=1e-4)
    assert all(bool(g.abs().sum() > 0) for g in torch.autograd.grad(loss(*masks), masks))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch.compile does it to autograd functions
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["chain", "heads", "group norm"])
def test_it_compiles(name: str, backend: str) -> None:
    model, x = CASES[name].example()
    graph = build_graph(model, x)
    program = MaskedProgram(graph)
    mask = interior_masks(graph)[0].requires_grad_()
    expected = program({graph.groups[0].name: mask}, x)
    found = torch.compile(program, backend=backend)({graph.groups[0].name: mask}, x)
    assert relative(found, expected) < 1e-12
    slopes = [torch.autograd.grad(y.square().sum(), mask)[0] for y in (found, expected)]
    assert relative(*slopes) < 1e-10


@pytest.mark.parametrize("name", CASES)
def test_it_runs_in_autocast(name: str) -> None:
    model, x = CASES[name].example()
    model, x = model.float(), x.float() if x.is_floating_point() else x
    graph = build_graph(model, x)
    plan = random_plan(graph, 0)
    masks = {group: mask.float() for group, mask in masks_of(graph, plan).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = MaskedProgram(graph)(masks, x)
    assert relative(found.float(), apply(model, plan)(x)) < 0.1


def test_weights_are_frozen_and_buffers_are_not_written() -> None:
    model, x = CASES["chain"].example()
    graph = build_graph(model.train(), x)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mask = torch.full((6,), 0.5, dtype=torch.float64, requires_grad=True)
    MaskedProgram(graph)({"a.weight[0]": mask}, x).sum().backward()
    assert mask.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_it_follows_the_weights_of_the_network() -> None:
    """The program holds no copy: weights that are trained on are seen by it."""
    model, x = CASES["cat"].example()
    program = MaskedProgram(build_graph(model, x))
    with torch.no_grad():
        model.a.weight.mul_(3)
    assert relative(program({}, x), model(x)) < 1e-12


def test_an_input_of_another_shape_is_refused() -> None:
    model, x = CASES["chain"].example()
    with pytest.raises(InputError, match=r"recorded for inputs of shape \[\(2, 1, 16\)\]"):
        MaskedProgram(build_graph(model, x))({}, x[:1])


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"b.weight[0]": torch.ones(6)}, r"no channel group named 'b.weight\[0\]'"),
        ({"a.weight[0]": torch.ones(5)}, r"'a.weight\[0\]' has 6 channels"),
    ],
)
def test_masks_that_fit_no_group_are_refused(masks: dict[str, Tensor], message: str) -> None:
    model, x = CASES["chain"].example()
    with pytest.raises(InputError, match=message):
        MaskedProgram(build_graph(model, x))(masks, x)


class Deviation(nn.Module):
    """Statistics over channels in forms that zero-masks get wrong."""

    def __init__(self, statistic: str) -> None:
        super().__init__()
        self.statistic = statistic
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        match self.statistic:
            case "softmax":
                x = x.softmax(-1)
            case "std":
                x = x / x.std(-1, keepdim=True)
            case "variance":
                x = x - x.var(-1, keepdim=True, unbiased=False)
            case "logsumexp":
                x = x - x.logsumexp(-1, keepdim=True)
            case "max":
                x = x - x.amax(-1, keepdim=True)
            case "norm":
                x = x / x.norm(dim=-1, keepdim=True)
            case "count":
                x = x.sum(-1, keepdim=True) / x.shape[-1] + x
            case "counting up":
                count = torch.arange(x.shape[-1], x.shape[-1] * (x.shape[1] + 1), x.shape[-1])
                x = x - (x.sum(-1).cumsum(-1) / count)[..., None]
        return self.b(x)


@pytest.mark.parametrize(
    "statistic", ["softmax", "std", "variance", "logsumexp", "max", "norm", "count", "counting up"]
)
def test_statistics_count_the_channels_that_are_there(statistic: str) -> None:
    torch.manual_seed(0)
    model, x = Deviation(statistic).double(), torch.randn(FRAMES[0], 4, 3, dtype=torch.float64)
    graph = build_graph(model, x)
    plan = graph.plan({"a.weight[0]": [1, 2, 6]})
    masked, pruned = MaskedProgram(graph)(masks_of(graph, plan), x), apply(model, plan)(x)
    assert relative(masked, pruned) < 1e-10


class Speakers(nn.Module):
    """Nested outputs and keyword inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 2, 1)

    def forward(self, mixture: Tensor, *, gain: Tensor) -> dict[str, object]:
        first, second = self.b(self.a(mixture) * gain).unbind(1)
        return {"sources": [first, second], "count": 2, "none": None}


def test_nested_outputs_keep_their_form() -> None:
    model = Speakers().double()
    inputs = {"mixture": torch.randn(SIGNAL, dtype=torch.float64), "gain": torch.tensor(0.5, dtype=torch.float64)}
    output = MaskedProgram(build_graph(model, inputs))({}, **inputs)
    expected = model(**inputs)
    assert (output["count"], output["none"], list(output)) == (2, None, list(expected))
    assert all(torch.equal(a, b) for a, b in zip(output["sources"], expected["sources"], strict=True))


class TwoSignals(nn.Module):
    """Two keyword inputs of one shape, which the network treats differently."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 1, 1)

    def forward(self, near: Tensor, far: Tensor) -> Tensor:
        return self.b(self.a(near)) - far


def test_the_order_of_keyword_inputs_does_not_matter() -> None:
    model = TwoSignals().double()
    near, far = torch.randn(2, *SIGNAL, dtype=torch.float64)
    program = MaskedProgram(build_graph(model, {"near": near, "far": far}))
    assert torch.equal(program({}, far=far, near=near), model(near, far))


class ChannelsLast(nn.Module):
    """Its values lie in memory as a norm under masks does not lay them: a view of them is a copy there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.squeeze, self.out = nn.Conv2d(8, 4, 1), nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).relu().to(memory_format=torch.channels_last)
        z = self.squeeze(self.norm(y).relu()).permute(0, 2, 3, 1).contiguous()
        return self.out(z.view(-1, self.out.in_features)).view(len(x), -1, 6)


def test_masked_values_may_be_laid_out_in_another_way() -> None:
    torch.manual_seed(0)
    model, x = ChannelsLast().eval(), torch.randn(3, 1, 8, 8)
    graph = build_graph(model, x)
    torch.testing.assert_close(MaskedProgram(graph)({}, x), model(x))
