"""Inputs and outputs of any form."""

import gc
import weakref
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from prunegraph import CaptureError, InputError, apply, build_graph, verify
from prunegraph.capture.example import Nested, call_arguments, normalise_example

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Batch:
    mixture: Tensor
    rate: int = 8000
    more: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frozen:
    mixture: Tensor
    name: str


class Record(dict):
    """A dict of a class of its own."""


def tensor(value: float) -> Tensor:
    return torch.full((2,), value)


NESTED: dict[str, Callable[[], Any]] = {
    "tensor": lambda: tensor(1),
    "tuple": lambda: (tensor(1), None, 3, "name", tensor(2)),
    "list of dicts": lambda: [{"a": tensor(1), "b": [tensor(2), 2.5]}, {}],
    "named tuple": lambda: Pair(tensor(1), {"x": tensor(2)}),
    "ordered": lambda: OrderedDict([("z", tensor(1)), ("a", tensor(2))]),
    "dataclass": lambda: Batch(tensor(1), 16000, {"a": tensor(2)}),
    "frozen dataclass": lambda: (Frozen(tensor(1), "x"), [Frozen(tensor(2), "y")]),
    "namespace": lambda: SimpleNamespace(a=tensor(1), b=SimpleNamespace(c=tensor(2)), d=3),
    "dict subclass": lambda: Record(a=tensor(1), b=7),
    "packed": lambda: pack_sequence([torch.ones(3, 2), torch.ones(2, 2)]),
    "nothing": lambda: (None, 1, "x", Frozen, len),
}


def equal(a: Any, b: Any) -> bool:
    """Deep equality, types included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, SimpleNamespace):
        return equal(vars(a), vars(b))
    if isinstance(a, Batch | Frozen):
        return all(equal(getattr(a, name), getattr(b, name)) for name in type(a).__dataclass_fields__)
    return a == b


@pytest.mark.parametrize("form", NESTED)
def test_nested_values_come_back_as_they_were(form: str) -> None:
    value = NESTED[form]()
    nested = Nested.of(value)
    assert equal(nested.rebuild(nested.tensors), value)
    assert equal(nested.without_tensors().rebuild(nested.tensors), value)
    if nested.tensors and form != "packed":
        doubled = nested.rebuild([2 * t for t in nested.tensors])
        assert [t.tolist() for t in Nested.of(doubled).tensors] == [(2 * t).tolist() for t in nested.tensors]
        assert equal(nested.rebuild(nested.tensors), value)


def test_the_structure_keeps_no_tensor_alive() -> None:
    value = Batch(tensor(1), more={"a": tensor(2)})
    alive = [weakref.ref(value.mixture), weakref.ref(value.more["a"])]
    structure = Nested.of(value).without_tensors()
    del value
    gc.collect()
    assert [reference() for reference in alive] == [None, None]
    assert structure.rebuild([tensor(1), tensor(2)]).rate == 8000


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (tensor(1), ((tensor(1),), {})),
        ((tensor(1), 2), ((tensor(1), 2), {})),
        ([tensor(1)], ((tensor(1),), {})),
        ({"x": tensor(1)}, ((), {"x": tensor(1)})),
        (({"x": tensor(1)},), (({"x": tensor(1)},), {})),
    ],
)
def test_the_three_forms_of_examples(given: Any, expected: Any) -> None:
    assert equal(call_arguments(given), expected)


@pytest.mark.parametrize("given", [None, 3, "x", {1: tensor(1)}, (), {}, (1, "a"), Batch])
def test_other_examples_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match="give a tensor, a tuple"):
        normalise_example(given)


class Flexible(nn.Module):
    """Takes its mixture out of, and gives its estimate in, whatever form is asked for."""

    def __init__(self, take: Callable[..., Tensor], give: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.take, self.give = take, give
        self.a, self.b = nn.Conv1d(1, 8, 3, padding=1), nn.Conv1d(8, 2, 1)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.give(self.b(self.a(self.take(*args, **kwargs)).relu()))


SIGNAL = torch.randn(2, 1, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

INPUTS: dict[str, tuple[Any, Callable[..., Tensor]]] = {
    "tensor": (SIGNAL, lambda x: x),
    "with a number and None": ((SIGNAL, 2, None), lambda x, n, nothing: x * n),
    "keywords": ({"mixture": SIGNAL, "gain": 2.0}, lambda *, mixture, gain: mixture * gain),
    "dict as an argument": (({"mixture": SIGNAL},), lambda batch: batch["mixture"]),
    "nested": (((SIGNAL, [SIGNAL]),), lambda pair: pair[0] + pair[1][0]),
    "dataclass": ((Batch(SIGNAL, 3),), lambda batch: batch.mixture * batch.rate),
    "namespace": ((SimpleNamespace(x=SIGNAL),), lambda batch: batch.x),
}
OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda y: y,
    "tuple with None": lambda y: (y, None, 3),
    "list": lambda y: list(y.unbind(1)),
    "dict": lambda y: {"estimates": y, "name": "x"},
    "dataclass": lambda y: Batch(y, 7),
    "nested": lambda y: {"all": [(y, {"first": y[:, 0]})]},
    "namespace": lambda y: SimpleNamespace(y=y),
    "twice the same": lambda y: (y, y),
}


@pytest.mark.parametrize("form", INPUTS)
def test_inputs_of_any_form_are_pruned_and_verified(form: str) -> None:
    example, take = INPUTS[form]
    check_form(Flexible(take, OUTPUTS["tensor"]).double(), example)


@pytest.mark.parametrize("form", OUTPUTS)
def test_outputs_of_any_form_are_pruned_and_verified(form: str) -> None:
    check_form(Flexible(lambda x: x, OUTPUTS[form]).double(), SIGNAL)


def check_form(model: nn.Module, example: Any) -> None:
    graph = build_graph(model, example)
    assert [(g.name, g.width) for g in graph.groups] == [("a.weight[0]", 8)]
    plan = graph.plan({"a.weight[0]": [0, 5]})
    report = verify(model, apply(model, plan), plan, example)
    assert report.difference < 1e-10


def test_packed_sequences_are_inputs() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.b = nn.GRU(3, 8), nn.Linear(8, 2)

        def forward(self, x: PackedSequence) -> Tensor:
            return self.b(self.rnn(x)[0].data)

    model, x = Packed().double(), pack_sequence([torch.ones(4, 3), torch.ones(2, 3)])
    x = PackedSequence(x.data.double(), x.batch_sizes)
    graph = build_graph(model, (x,))
    assert [g.width for g in graph.groups] == [8]
    plan = graph.plan({graph.groups[0].name: [0, 5]})
    assert verify(model, apply(model, plan), plan, (x,)).difference < 1e-10


@pytest.mark.parametrize("give", [lambda y: None, lambda y: y.tolist(), lambda y: {"loss": y.sum().item()}])
def test_an_output_without_tensors_is_refused(give: Callable[[Tensor], Any]) -> None:
    with pytest.raises(CaptureError, match="there is no tensor; return a tensor"):
        build_graph(Flexible(lambda x: x, give).double(), SIGNAL)
