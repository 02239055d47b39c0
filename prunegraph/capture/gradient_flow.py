"""Notes during a record where the network's code says itself how gradients flow: ``no_grad`` and custom functions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.autograd import Function
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot

from prunegraph.capture.torch_internals import computes
from prunegraph.capture.tracked import expression_of, plain
from prunegraph.ir.trace import OwnBackward

_PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.Size, type(None))


class GradientFlow:
    """Whether gradients would flow now, and the custom functions that were called.

    Attributes:
        stopped: within ``torch.no_grad()``.
        functions: calls of custom functions of tensors. Those that are given functions or modules, as checkpoints
            are, differentiate them as they are.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.functions: list[OwnBackward] = []
        self._within_function = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Watches what changes the flow of gradients, wherever it is called, until the block ends."""
        with ExitStack() as stack:
            for mode, stops in ((torch.no_grad, True), (torch.inference_mode, True), (torch.enable_grad, False)):
                for name, method in self._methods(mode, stops).items():
                    stack.enter_context(patch.object(mode, name, method))
            stack.enter_context(
                patch.object(Function, "apply", classmethod(self._applied(vars(Function)["apply"].__func__)))
            )
            yield

    def _methods(self, mode: Any, stops: bool) -> dict[str, Callable[..., Any]]:
        before: list[bool] = []
        enter, leave = mode.__enter__, mode.__exit__

        def entered(self_: Any) -> Any:
            before.append(self.stopped)
            self.stopped = stops and getattr(self_, "mode", True) and not self._within_function
            return enter(self_)

        def left(self_: Any, *error: Any) -> Any:
            self.stopped = before.pop()
            return leave(self_, *error)

        return {"__enter__": entered, "__exit__": left}

    def _applied(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        def method(kind: type[Function], *args: Any, **kwargs: Any) -> Any:
            mode = get_proxy_mode()
            if mode is None:  # torch itself computes something aside
                return apply(kind, *args, **kwargs)
            last, outer = next(iter(reversed(mode.tracer.graph.nodes))), (self.stopped, self._within_function)
            self.stopped, self._within_function = False, True
            try:
                result = apply(kind, *args, **kwargs)
            finally:
                self.stopped, self._within_function = outer
            if not kwargs:
                self._note(kind, args, result, [node.name for node in _after(last) if computes(node)])
            return result

        return method

    def _note(self, kind: type[Function], args: Sequence[Any], result: Any, made: Sequence[str]) -> None:
        names = [_name(arg) for arg in args]
        followed = all(name or isinstance(arg, _PLAIN) for arg, name in zip(args, names, strict=True))
        outputs = tuple(_name(value) for value in (result if isinstance(result, tuple) else (result,)))
        own = any(outputs) and all(name in made for name in outputs if name)
        if own and followed and not self._within_function:
            numbers = (plain(arg) if expression_of(arg) else arg for arg in args)
            given = tuple(name or number for name, number in zip(names, numbers, strict=True))
            tensors = tuple(place for place, name in enumerate(names) if name)
            self.functions.append(OwnBackward(kind=kind, args=given, tensors=tensors, outputs=outputs, last=made[-1]))


def _name(value: Any) -> str:
    """Of the node that stands for a tensor; empty for what no node stands for."""
    mode = get_proxy_mode()
    slot = get_proxy_slot(value, mode.tracer, None) if mode and isinstance(value, torch.Tensor) else None
    return "" if slot is None else slot.proxy.node.name


def _after(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    while (node := node.next).op != "root":
        yield node
