"""Watches torch calls during capture: who made them, and where their size arguments came from."""

import math
import operator
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode

from prunegraph.capture import tracked
from prunegraph.capture.gradient_flow import GradientFlow
from prunegraph.capture.literals import fractions
from prunegraph.capture.made_of_numbers import MADE_OF_NUMBERS, written
from prunegraph.capture.numbers_in_arrays import RangeOfSizes
from prunegraph.capture.numbers_in_tensors import NumbersInTensors, typed
from prunegraph.capture.tracked import TrackedSize, expression_of, track
from prunegraph.capture.whereabouts import Whereabouts, is_asked_by_user
from prunegraph.errors import UnsupportedModelError
from prunegraph.ir.sizes import Constant, Derived, Expression, ShapeOf, attributes, leaves
from prunegraph.ir.trace import Comparison, Place, Site

_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]
_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]
_READS = (torch.Tensor.item, torch.Tensor.tolist)
_NUMEL = (torch.Tensor.numel, torch.Tensor.nelement, torch.numel)


class CallRecorder(TorchFunctionMode):
    """Annotates each graph node that a torch call adds with its site and the expressions behind its numbers.

    Args:
        where: tells where the network's code is.
    """

    def __init__(self, where: Whereabouts) -> None:
        super().__init__()
        self.where = where
        self.sites: dict[str, Site] = {}
        self.sizes: dict[str, dict[Place, Expression]] = {}
        self.comparisons: dict[Comparison, Site] = {}
        self.converted: dict[Expression, Site] = {}
        self.numbers = NumbersInTensors()
        self.gradients = GradientFlow()
        self.without_gradient: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        mode = get_proxy_mode()
        if mode is None:  # torch itself computes something aside, such as the copy of a constant
            return func(*args, **(kwargs or {}))
        self._refuse_generators((kwargs or {}).values())
        tracer: Any = mode.tracer
        if func == _DATA:  # reading it would leave the record
            func = torch.Tensor.detach
        if func in MADE_OF_NUMBERS and any(expression_of(number) for number in _numbers([args, kwargs])):
            with self:
                made = MADE_OF_NUMBERS[func](*args, **(kwargs or {}))
            self.numbers.note_made(func, args, made)
            return made
        found = self.numbers.read(func, args)
        if found is not None:
            return found
        args = self.numbers.in_slices(func, [typed(arg) for arg in args])
        if func is torch.Tensor.__setitem__ and expression_of(args[-1]):
            with self:
                args = (*args[:-1], written(args[0], args[-1]))
        if func is F.multi_head_attention_forward:
            return self._part_by_part(func, args, kwargs or {})
        before = len(tracer.graph.nodes)
        with _nothing_if_it_fails(tracer.graph):
            result = func(*args, **(kwargs or {}))
        self.numbers.note_item(func, args, result)
        if func in _READS:  # what meets a size keeps that one's origin
            return fractions(result)
        if func == _SHAPE or func is torch.Tensor.size:
            return self._tracked_shape(args, kwargs or {}, result, tracer)
        if func in _NUMEL:
            return math.prod(self._tracked_shape(args, {}, args[0].shape, tracer))
        added = len(tracer.graph.nodes) - before
        if added > 0:
            self._annotate(_last_nodes(tracer.graph, added), func, args, kwargs or {})
        return result

    def _refuse_generators(self, values: Iterable[Any]) -> None:
        if any(isinstance(value, torch.Generator) for value in values):
            raise UnsupportedModelError(
                f"the forward pass draws from a generator of its own ({self.where.site()}), which can be no part of a "
                "record; draw these numbers outside the network, or from torch's own generator"
            )

    def _part_by_part(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Runs a Python function of torch as if it were the user's: it compares and computes sizes."""
        with (
            self,
            patch.object(F, "has_torch_function", lambda _: False),
            patch.object(F, "float", tracked.as_float, create=True),
        ):
            return func(*args, **kwargs)

    def note_comparison(self, left: Expression, right: Expression, relation: str, outcome: bool) -> None:
        """Keeps the outcome of a comparison of sizes, and the first place where it was made.

        Of those that torch makes on its way only equality of a shape with an attribute tells about the network.
        """
        comparison = Comparison(left=left, right=right, relation=relation, outcome=outcome)
        with_attribute = any(attributes(side) for side in (left, right)) and not isinstance(right, Constant)
        with_shape = any(isinstance(leaf, ShapeOf) for side in (left, right) for leaf in leaves(side))
        telling = comparison.found_equal and with_attribute and with_shape
        if comparison not in self.comparisons and (telling or is_asked_by_user()):
            self.comparisons[comparison] = self.where.site()

    def note_conversion(self, expression: Expression) -> None:
        """Keeps the first place where the user's code made an ordinary number of a size."""
        if expression not in self.converted and is_asked_by_user():
            self.converted[expression] = self.where.site()

    def measured(self) -> set[str]:
        """Names of the nodes whose shapes the numbers in the record are computed from."""
        expressions = (expression for of_node in self.sizes.values() for expression in of_node.values())
        return {leaf.node for expression in expressions for leaf in leaves(expression) if isinstance(leaf, ShapeOf)}

    def _tracked_shape(self, args: Any, kwargs: dict[str, Any], result: Any, tracer: Any) -> Any:
        slot = get_proxy_slot(args[0], tracer, None)
        if slot is None:
            return result
        node = slot.proxy.node.name
        if isinstance(result, torch.Size):
            return TrackedSize(track(n, ShapeOf(node, dim, n), self) for dim, n in enumerate(result))
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        dim = int(dim) % args[0].dim() if isinstance(dim, int) else dim
        return track(result, ShapeOf(node, dim, result), self) if isinstance(dim, int) else result

    def _annotate(self, nodes: list[fx.Node], func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        site = self.where.site()
        within_torch = isinstance(func, types.FunctionType) or func is torch.Tensor.__setitem__
        slices = _slices(func, args)
        for node in nodes:
            self.sites[node.name] = site
            if self.gradients.stopped:
                self.without_gradient.add(node.name)
            if node.target is not operator.getitem:  # its number is the place of an output
                given = _given_to_slice(node, slices) or args
                self.sizes[node.name] = dict(_origins(node, given, kwargs, within_torch))


@contextmanager
def _nothing_if_it_fails(graph: fx.Graph) -> Iterator[None]:
    """Takes back what a failing call recorded: the code may catch the error."""
    before = len(graph.nodes)
    try:
        yield
    except Exception:
        for node in reversed(_last_nodes(graph, len(graph.nodes) - before)):
            graph.erase_node(node)
        raise


def _last_nodes(graph: fx.Graph, count: int) -> list[fx.Node]:
    nodes: list[fx.Node] = []
    node = graph._root.prev
    for _ in range(count):
        nodes.append(node)
        node = node.prev
    return nodes[::-1]


def _slices(func: Any, args: Any) -> list[slice]:
    """The slices that an index consists of, in their order."""
    if func not in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
        return []
    return [item for item in (args[1] if isinstance(args[1], tuple) else args[1:2]) if isinstance(item, slice)]


def _given_to_slice(node: fx.Node, slices: list[slice]) -> tuple[Any, ...] | None:
    """The arguments of an op that cuts one dimension, as the code gave them; takes the slice off the list.

    Two slices may end at the same number, ``weight[:outputs, :inputs]``, which then says not whose it is.
    """
    if node.target is not torch.ops.aten.slice.Tensor or len(node.args) < 4:
        return None
    _, dim, start, stop, *_ = node.args
    for number, item in enumerate(slices):
        first = 0 if item.start is None else item.start
        if _is_number(first) and _is_number(item.stop) and (first, item.stop) == (start, stop):
            del slices[: number + 1]
            return node.args[0], dim, item.start, item.stop, item.step
    return None


def _origins(
    node: fx.Node, args: Any, kwargs: dict[str, Any], within_torch: bool
) -> Iterator[tuple[Place, Expression]]:
    """Pairs each number among the node's arguments with the expression behind it.

    The arguments of the Python call and those of the ATen call mostly stand in the same places. Where they do not
    (``view(2, -1)`` against ``view([2, -1])``), a list is looked for as a run among all numbers of the call, and a
    single number by its value. A number that is nowhere in the call was derived by torch itself, if it was a
    Python function of torch that made the call, or an assignment to a part of a tensor, and otherwise is a constant.
    """
    numbers = list(_numbers((args, kwargs)))
    named: dict[int | str, Any] = dict(enumerate(args))
    named.update(kwargs)
    places: list[tuple[int | str, Any]] = [*enumerate(node.args), *node.kwargs.items()]
    for place, value in places:
        if isinstance(value, list | tuple):
            yield from _origins_of_list(place, value, named.get(place), numbers, within_torch)
        elif _is_number(value):
            given = named.get(place)
            same = _is_number(given) and given == value
            yield (place,), _expression(given) if same else _by_value(value, numbers, within_torch)


def _origins_of_list(
    place: int | str, values: Iterable[Any], given: Any, numbers: list[Any], within_torch: bool
) -> Iterator[tuple[Place, Expression]]:
    values = list(values)
    if not values or not all(_is_number(value) for value in values):
        return
    run = _find_run(values, list(_numbers(given))) or _find_run(values, numbers)
    for index, value in enumerate(values):
        yield (place, index), _expression(run[index]) if run else _by_value(value, numbers, within_torch)


def _find_run(values: list[Any], numbers: list[Any]) -> list[Any] | None:
    for start in range(len(numbers) - len(values) + 1):
        run = numbers[start : start + len(values)]
        if run == values:
            return run
    return None


def _by_value(value: Any, numbers: list[Any], within_torch: bool) -> Expression:
    equal = [number for number in numbers if number == value]
    tracked = next((found for number in equal if (found := expression_of(number)) is not None), None)
    if tracked is not None:
        return tracked
    return Derived() if within_torch and not equal else Constant(value)


def _expression(number: Any) -> Expression:
    return expression_of(number) or Constant(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> Iterator[Any]:
    """All numbers of a call's arguments in order of their standing."""
    if _is_number(value):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))
    elif isinstance(value, RangeOfSizes):
        yield from value.arguments
    elif isinstance(value, slice):
        yield from _numbers([value.start, value.stop, value.step])
