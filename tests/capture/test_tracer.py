"""What a record holds: ops, names, sites, ties and shared modules; and what a failed capture says."""

import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from prunegraph import CaptureError, UnsupportedModelError
from prunegraph.capture.tracer import capture
from prunegraph.ir.trace import Trace, ValueSpec
from tests.dependency.cases import CASES


def ops(trace: Trace) -> list[str]:
    return [str(node.target) for node in trace.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chain", ["aten.conv1d.default", "aten.batch_norm.default", "aten.prelu.default", "aten.conv1d.default"]),
        ("gated", ["aten.linear.default", "aten.gru.input", "aten.linear.default"]),
        ("group norm", ["aten.conv1d.default", "aten.group_norm.default", "aten.relu.default", "aten.conv1d.default"]),
        ("transposed", ["aten.conv_transpose1d.default"]),
        ("tied", ["aten.embedding.default", "aten.linear.default"]),
    ],
)
def test_ops_are_those_that_the_user_called(name: str, expected: list[str]) -> None:
    """High-level ops, before autograd takes them apart."""
    found = [op for op in ops(capture(*CASES[name].example())) if op in expected]
    assert list(dict.fromkeys(found)) == list(dict.fromkeys(expected))


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_has_a_name_and_every_call_a_line(name: str) -> None:
    model, x = CASES[name].example()
    trace = capture(model, x)
    named = [n for spec in trace.tensors.values() for n in (spec.name, *spec.aliases)]
    assert set(named) >= set(model.state_dict())
    assert len(trace.inputs) == 1
    sites = [trace.site(node) for node in trace.graph.nodes if str(node.target).startswith("aten.")]
    assert all(site.file and site.line and site.code for site in sites)
    modules = dict(model.named_modules())
    assert {site.module for site in sites} <= set(modules)


def test_a_site_is_the_users_line_in_the_innermost_module() -> None:
    model, x = CASES["chunk"].example()
    trace = capture(model, x)
    (node,) = [node for node in trace.graph.nodes if str(node.target) == "aten.chunk.default"]
    site = trace.site(node)
    lines, first = inspect.getsourcelines(type(model).forward)
    assert site.code == "value, gate = self.a(x).chunk(2, dim=1)"
    assert lines[site.line - first].strip() == site.code
    assert Path(site.file) == Path(inspect.getfile(type(model)))
    conv = next(node for node in trace.graph.nodes if str(node.target) == "aten.conv1d.default")
    assert (trace.site(conv).module, trace.site(conv).line) == ("a", site.line)


class Rearranged(nn.Module):
    """Has its shapes computed by another package."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.joined = 2, Rearrange("b h d t -> b (h d) t")

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(rearrange(x, "b (h d) t -> b h d t", h=self.heads))


def test_a_site_is_the_line_that_calls_another_package() -> None:
    model = nn.Sequential(nn.Conv1d(1, 4, 1), Rearranged())
    trace = capture(model, torch.randn(2, 1, 3))
    reshapes = [node for node in trace.graph.nodes if node.target is torch.ops.aten.reshape.default]
    assert [trace.site(node).module for node in reshapes] == ["1", "1.joined"]
    assert trace.site(reshapes[0]).code == 'return self.joined(rearrange(x, "b (h d) t -> b h d t", h=self.heads))'
    assert "einops" in trace.site(reshapes[1]).file
    model[1].heads = 3
    with pytest.raises(CaptureError, match=r"in 1 at .*: EinopsError[\s\S]*return self.joined\(rearrange"):
        capture(model, torch.randn(2, 1, 3))


def test_values_have_the_shapes_of_the_run() -> None:
    model, x = CASES["gated"].example()
    trace = capture(model, x)
    by_op = {str(node.target): trace.values[node.name] for node in trace.graph.nodes if node.op == "call_function"}
    assert by_op["aten.gru.input"] == (
        ValueSpec(shape=(2, 5, 5), dtype=torch.float64),
        ValueSpec(shape=(1, 2, 5), dtype=torch.float64),
    )
    assert by_op["aten.linear.default"] == ValueSpec(shape=(2, 5, 2), dtype=torch.float64)


def test_the_record_computes_what_the_network_does() -> None:
    for case in CASES.values():
        model, x = case.example()
        trace = capture(model, x)
        root = nn.Module()
        for name, constant in trace.constants.items():
            root.register_buffer(name, constant)
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        operands = [tensors[spec.name] for spec in trace.tensors.values()]
        (found,) = torch.fx.GraphModule(root, trace.graph)(*operands, x)
        assert torch.allclose(found, model(x), rtol=1e-12)


def test_tied_tensors_are_one_with_several_names() -> None:
    trace = capture(*CASES["tied"].example())
    assert {spec.name: spec.aliases for spec in trace.tensors.values() if spec.aliases} == {
        "table.weight": ("last.weight",)
    }


def test_shared_modules_are_one_with_several_paths() -> None:
    shared = nn.Linear(4, 4)
    trace = capture(nn.Sequential(shared, nn.ReLU(), shared), torch.randn(2, 4))
    assert {path: module.aliases for path, module in trace.modules.items() if module.aliases} == {"0": ("2",)}
    assert [(s.name, s.aliases) for s in trace.tensors.values()] == [
        ("0.weight", ("2.weight",)),
        ("0.bias", ("2.bias",)),
    ]


def test_what_is_never_read_is_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model.register_parameter("spare", nn.Parameter(torch.zeros(3)))
    assert capture(model, torch.randn(2, 4)).unused == {"spare", "1.num_batches_tracked"}


class Branching(nn.Module):
    """Python control flow on values and shapes, and numbers read out of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[0]
        y = self.a(x)
        if y.abs().sum() > 0 and y.shape[1] > 2:
            for step in range(steps):
                y = y * (1 + step * float(y.detach().mean().item() * 0))
        lengths = torch.tensor([len(row) for row in y.tolist()])
        with torch.no_grad():
            y = y + lengths.max()
        with torch.autocast("cpu", enabled=False):
            y = y.sqrt() if bool((y < 0).all()) else y
        return self.b(y)


def test_control_flow_is_no_obstacle() -> None:
    trace = capture(Branching(), torch.randn(3, 4))
    assert ops(trace).count("aten.mul.Tensor") >= 3
    assert "aten.sqrt.default" not in ops(trace)


class Fails(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.inner = kind, nn.Sequential(nn.Linear(4, 4), Failing(kind))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Failing(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "raises":
            raise KeyError("speaker")  # the line to name
        return self.layer(x)  # does not fit


@pytest.mark.parametrize(
    ("kind", "module", "code", "cause"),
    [
        ("raises", "inner.1", 'raise KeyError("speaker")  # the line to name', "KeyError: 'speaker'"),
        (
            "misfits",
            "inner.1.layer",
            "return self.layer(x)  # does not fit",
            "mat1 and mat2 shapes cannot be multiplied",
        ),
    ],
)
def test_a_failure_names_module_file_and_line(kind: str, module: str, code: str, cause: str) -> None:
    lines, first = inspect.getsourcelines(Failing.forward)
    line = first + next(i for i, text in enumerate(lines) if code in text)
    with pytest.raises(CaptureError) as caught:
        capture(Fails(kind), torch.randn(2, 4))
    message = str(caught.value)
    assert f"in {module} at {__file__}:{line}" in message
    assert code in message
    assert cause in message
    assert "does `model(*example_inputs)` run" in message
    assert caught.value.__cause__ is not None


def test_a_failure_in_the_arguments_names_the_network() -> None:
    with pytest.raises(CaptureError, match=r"\(network\).*forward\(\) takes 2 positional arguments but 3 were given"):
        capture(nn.Sequential(nn.Linear(4, 2)), (torch.randn(2, 4), 3))


def test_fused_transformer_layers_are_seen_in_parts() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = ops(capture(layer, torch.randn(2, 3, 8)))
    assert "aten._transformer_encoder_layer_fwd.default" not in found
    assert "aten.scaled_dot_product_attention.default" in found


def test_complex_and_integer_inputs_are_taken() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.b = nn.Embedding(7, 6), nn.Linear(6, 2)

        def forward(self, spectrum: Tensor, speaker: Tensor) -> Tensor:
            return self.b(F.relu(spectrum.abs()) * self.table(speaker))

    trace = capture(Mixed(), (torch.randn(2, 6, dtype=torch.complex64), torch.tensor([0, 3])))
    assert [trace.values[name].dtype for name in trace.inputs] == [torch.complex64, torch.int64]


class Generated(nn.Module):
    """Draws noise from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(0))


class Asking(nn.Module):
    """Adds its bias if that is learned, as layers of quaternions do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bias = nn.Linear(3, 4), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return y + self.bias if self.bias.requires_grad else y


@pytest.mark.parametrize("learned", [True, False])
def test_parameters_require_gradients_in_the_record_as_they_do_without(learned: bool) -> None:
    model = Asking()
    model.bias.requires_grad_(learned)
    assert ("aten.add.Tensor" in ops(capture(model, torch.randn(2, 3)))) == learned


class Descending(nn.Module):
    """Takes a step down the gradient of a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return y - torch.func.grad(lambda z: z.square().sum())(y)


def test_gradients_of_functions_cannot_be_recorded() -> None:
    with pytest.raises(UnsupportedModelError, match=r"transform of torch\.func, of which no record can be made"):
        capture(Descending(), torch.randn(1, 1, 8))


def test_a_generator_cannot_be_recorded() -> None:
    with pytest.raises(UnsupportedModelError, match=r"draws from a generator of its own \(\(network\) at "):
        capture(Generated(), torch.randn(1, 1, 8))
