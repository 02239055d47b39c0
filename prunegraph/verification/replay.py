"""Recorded graphs, run again with every value kept."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import fx

from prunegraph.ir.trace import Trace
from prunegraph.masked.program import MaskedProgram


class _Recorder(fx.Interpreter):
    """Keeps a copy of every value: later ops may write into it."""

    def __init__(self, module: fx.GraphModule, name: Callable[[fx.Node], str]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.key_of = name
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.values[self.key_of(n)] = value.clone() if isinstance(value, torch.Tensor) else value
        return value


def values_of_masked(program: MaskedProgram, keep: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """Node name of the trace -> what its counterpart in the masked program gives out, as far as that runs."""
    recorder = _Recorder(program.program, lambda node: str(node.meta.get("origin", f"masked {node.name}")))
    torch.manual_seed(0)
    with suppress(RuntimeError):
        recorder.run(*program.operands(keep, inputs))
    return recorder.values


def values_of_trace(
    trace: Trace, weights: Mapping[str, torch.Tensor], inputs: tuple[torch.Tensor, ...]
) -> dict[str, Any]:
    """Node name -> what it gives out with these weights."""
    recorder = _Recorder(trace.as_module(), lambda node: node.name)
    torch.manual_seed(0)
    tensors = [weights[spec.name].detach().clone() for spec in trace.tensors.values()]
    recorder.run(*tensors, *(tensor.clone() for tensor in inputs))
    return recorder.values
