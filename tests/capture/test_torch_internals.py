"""The private switches of torch that capture relies on, each seen at work with the installed version."""

import inspect
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import library as op_registry
from torch.fx.experimental import proxy_tensor
from torch.utils import _pytree as pytree

from prunegraph.capture.recorder import CallRecorder
from prunegraph.capture.torch_internals import (
    ATTENTION_MODULES,
    VALUE,
    attention_forward,
    is_compiled,
    trace_aten,
    value_spec,
)
from prunegraph.capture.whereabouts import Whereabouts
from prunegraph.ir.sizes import ShapeOf
from prunegraph.ir.trace import ValueSpec


def targets(traced: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in traced.graph.nodes if node.op == "call_function"]


def test_calls_are_recorded_before_autograd() -> None:
    weight = torch.randn(3, 4)
    traced = trace_aten(lambda x: torch.nn.functional.linear(x, weight).relu(), [torch.randn(2, 4)])
    assert targets(traced) == ["aten.linear.default", "aten.relu.default"]


def test_numbers_are_read_out_of_tensors() -> None:
    def function(x: Tensor) -> Tensor:
        return x * x.sum().item() if x.tolist()[0] > 0 else -x

    x = torch.tensor([1.0, 2.0])
    traced = trace_aten(function, [x])
    assert torch.equal(traced(x), x * 3)


def test_modes_of_gradients_leave_no_node() -> None:
    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x + 1
        with torch.set_grad_enabled(True):
            return y * 2

    assert targets(trace_aten(function, [torch.ones(2)])) == ["aten.add.Tensor", "aten.mul.Tensor"]


def test_values_are_kept_as_shapes_only() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return x.chunk(2)

    traced = trace_aten(function, [torch.ones(4, 3)])
    metas = {str(node.target): node.meta for node in traced.graph.nodes}
    half = ValueSpec(shape=(2, 3), dtype=torch.float32)
    assert metas["aten.chunk.default"][VALUE] == (half, half)
    assert "val" not in metas["aten.chunk.default"]


def test_the_switch_on_values_is_put_back() -> None:
    before = proxy_tensor.set_meta
    trace_aten(lambda x: x + 1, [torch.ones(2)])
    assert proxy_tensor.set_meta is before
    with pytest.raises(ZeroDivisionError):
        trace_aten(lambda x: x * (1 / 0), [torch.ones(2)])
    assert proxy_tensor.set_meta is before


def test_torchs_warnings_while_recording_are_kept_quiet() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace_aten(lambda x: torch.tensor(x.shape) + x.sum().item(), [torch.ones(2)])
    assert caught == []


def test_recorded_ops_run_on_torchs_own_kernels() -> None:
    """Torch's Python dispatcher would look at every part of an op: 10 times as slow for a depthwise convolution."""
    seen: list[bool] = []

    def kernel(x: Tensor) -> Tensor:
        key = torch._C.DispatchKey.PythonDispatcher
        seen.append(torch._C._dispatch_tls_is_dispatch_key_included(key))
        return x.clone()

    with op_registry._scoped_library("run_natively", "DEF") as ops:
        ops.define("probe(Tensor x) -> Tensor")
        ops.impl("probe", kernel, "CompositeExplicitAutograd")
        traced = trace_aten(torch.ops.run_natively.probe, [torch.ones(2)])
    assert targets(traced) == ["run_natively.probe.default"]
    assert seen == [False]


def test_shapes_can_be_watched_and_traced_back_to_their_value() -> None:
    recorder = CallRecorder(Whereabouts({}))
    seen: list[object] = []

    def function(x: Tensor) -> Tensor:
        with recorder:
            y = x + 1
            seen.extend([y.shape[0], y.size(1), y.size()[1]])
            return y.view(y.shape[1], -1)

    traced = trace_aten(function, [torch.ones(2, 3)])
    add, view = (node.name for node in traced.graph.nodes if node.op == "call_function")
    assert [(e.node, e.dim, e.value) for e in (n.expression for n in seen)] == [(add, 0, 2), (add, 1, 3), (add, 1, 3)]
    assert recorder.sizes[view][(1, 0)] == seen[1].expression
    assert recorder.sites[view].file == __file__


def test_the_last_nodes_of_a_graph_are_found_backwards() -> None:
    traced = trace_aten(lambda x: (x + 1) * 2, [torch.ones(2)])
    assert [node.op for node in (traced.graph._root.prev, traced.graph._root.prev.prev)] == ["output", "call_function"]


def test_compiled_functions_run_as_they_are_written() -> None:
    compiled = torch.compile(lambda x: x.relu() + 1, backend="eager")
    assert targets(trace_aten(lambda x: compiled(x) * 2, [torch.ones(2)])) == [
        "aten.relu.default",
        "aten.add.Tensor",
        "aten.mul.Tensor",
    ]


def gated(x: Tensor) -> Tensor:
    return (x.reshape(x.shape[0], -1) * 2).relu()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_script_functions_run_as_they_are_written() -> None:
    """Inside TorchScript sizes are plain integers, of which nobody knows where they came from."""
    recorder, script = CallRecorder(Whereabouts({})), torch.jit.script(gated)

    def function(x: Tensor) -> Tensor:
        with recorder:
            return script(x + 1)

    traced = trace_aten(function, [torch.ones(2, 3)])
    assert targets(traced) == ["aten.add.Tensor", "aten.reshape.default", "aten.mul.Tensor", "aten.relu.default"]
    add, reshape, *_ = (node.name for node in traced.graph.nodes if node.op == "call_function")
    assert recorder.sizes[reshape][(1, 0)] == ShapeOf(add, 0, 2)
    assert recorder.sites[reshape].code == "return (x.reshape(x.shape[0], -1) * 2).relu()"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_traced_functions_run_as_they_are() -> None:
    """Nothing is left of the Python function that they were made from."""
    function = torch.jit.trace(lambda x: x.relu() + 1, torch.ones(2), check_trace=False)
    x = torch.tensor([-1.0, 3.0])
    traced = trace_aten(lambda x: function(x) * 2, [x])
    assert torch.equal(traced(x), torch.tensor([2.0, 8.0]))


@pytest.mark.parametrize(("in_dims", "out_dims"), [(0, 0), ((1, None), 1), ((0, 1), (0, 1))])
def test_mapped_functions_run_item_by_item(in_dims: Any, out_dims: Any) -> None:
    def function(x: Tensor, y: Tensor) -> Any:
        return (x * 2 + y.sum(), x.flip(0)) if isinstance(out_dims, tuple) else x * 2 + y.sum()

    x, y = torch.randn(3, 3), torch.randn(3, 3)
    mapped = torch.vmap(function, in_dims, out_dims)
    traced = trace_aten(lambda x, y: list(pytree.tree_leaves(mapped(x, y))), [x, y])
    assert targets(traced).count("aten.mul.Tensor") == 3
    assert not any(node.op == "get_attr" for node in traced.graph.nodes)
    torch.testing.assert_close(traced(-x, y), list(pytree.tree_leaves(mapped(-x, y))))


def test_what_is_mapped_over_many_items_runs_at_once() -> None:
    """Masks are made so, one call for each pair of times."""
    times = torch.arange(40)
    pairs = torch.vmap(torch.vmap(lambda i, j: i >= j, (None, 0)), (0, None))
    traced = trace_aten(lambda x: x.masked_fill(pairs(times, times), 0.0), [torch.ones(40, 40)])
    assert len(targets(traced)) < 40
    assert torch.equal(traced(torch.ones(40, 40)), torch.ones(40, 40).triu(1))


def test_what_is_mapped_over_many_inputs_stays_on_record() -> None:
    """Its result would be a constant, and other inputs of the same shape would not matter."""
    mapped = torch.vmap(lambda x: x * 2)
    traced = trace_aten(lambda x: mapped(x + 1), [torch.ones(40, 3)])
    assert not any(node.op == "get_attr" for node in traced.graph.nodes)
    torch.testing.assert_close(traced(torch.zeros(40, 3)), torch.full((40, 3), 2.0))


def test_notes_for_the_profiler_leave_no_node() -> None:
    def function(x: Tensor) -> Tensor:
        with torch.profiler.record_function("part"):
            return x + 1

    traced = trace_aten(function, [torch.ones(2)])
    assert [str(node.target) for node in traced.graph.nodes if node.op not in ("placeholder", "output")] == [
        "aten.add.Tensor"
    ]


def test_reading_data_stays_on_record() -> None:
    """``x.data`` on its own would be a value from nowhere."""
    recorder = CallRecorder(Whereabouts({}))

    def function(x: Tensor) -> Tensor:
        with recorder:
            return x.data * 2

    assert targets(trace_aten(function, [torch.ones(2)])) == ["aten.detach.default", "aten.mul.Tensor"]


def test_compiled_modules_are_known() -> None:
    in_place = nn.Linear(2, 2)
    in_place.compile(backend="eager")
    assert is_compiled(torch.compile(nn.Linear(2, 2), backend="eager"))
    assert is_compiled(in_place)
    assert not is_compiled(nn.Linear(2, 2))


@pytest.mark.parametrize("value", [3, "x", None])
def test_only_tensors_have_specs(value: object) -> None:
    assert value_spec(value) is None
    assert value_spec([torch.ones(2), value]) == (ValueSpec(shape=(2,), dtype=torch.float32), None)


@pytest.mark.parametrize("kind", ATTENTION_MODULES)
def test_attention_has_the_signature_that_is_put_in_its_place(kind: type[nn.Module]) -> None:
    theirs, ours = (list(inspect.signature(f).parameters) for f in (kind.forward, attention_forward))
    assert ours[1:] == theirs[1:]
