"""Every value on the way, sampled: an output may hide an error behind what is larger, as a residual or another output.

A sample holds a value's entries at evenly spaced places, so that both networks need no more memory than a forward pass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from prunegraph.graph import DependencyGraph
from prunegraph.ir.trace import Trace
from prunegraph.masked.program import MaskedProgram

aten = torch.ops.aten

_Present: TypeAlias = Sequence[NDArray[np.int64] | None]
"""Per dimension the indices that stay; None for all."""

_PLACES = 512
_RELATIVE, _OF_OPERANDS = 1e-2, 1e-4
"""By how much of a value's size, or of its operands' where they cancel, an entry may differ."""
_MANY = 0.1
"""The share of entries that differ in what is wrong; rounding turns single angles and signs around."""
_EMPTY = frozenset({aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided})


@dataclass(frozen=True, slots=True)
class _Sample:
    """Entries of a value of the given shape, in double precision."""

    shape: Sequence[int]
    entries: Tensor

    @property
    def size(self) -> float:
        """Root mean square of what is finite."""
        finite = self.entries[self.entries.isfinite()]
        return float(finite.abs().square().mean().sqrt()) if finite.numel() else 0.0


class _Sampler(fx.Interpreter):
    """Runs a graph and keeps a sample of each value of real or complex numbers."""

    def __init__(
        self, module: fx.GraphModule, key: Callable[[fx.Node], str], present: Callable[[str], _Present]
    ) -> None:
        super().__init__(module)
        self.key, self.present = key, present
        self.samples: dict[str, _Sample] = {}

    def run_node(self, n: fx.Node) -> Any:
        value, key = super().run_node(n), self.key(n)
        if getattr(n.target, "overloadpacket", None) in _EMPTY:
            value.zero_()  # what stands there by chance differs from run to run
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()) and value.numel():
            self.samples[key] = _sample(value, self.present(key))
        return value


Samples: TypeAlias = Mapping[str, _Sample]
"""Node name of a record -> what its value looks like."""


def masked_run(
    graph: DependencyGraph,
    program: MaskedProgram,
    kept: NDArray[np.bool_],
    keep: Tensor,
    inputs: tuple[Tensor, ...],
) -> tuple[list[Tensor], Samples]:
    """The outputs of the exact masked program, and samples of its values at channels that stay.

    Args:
        graph: of the original.
        program: its exact masked program.
        kept: for each channel whether it stays.
        keep: the same as keep values, shape ``(channels,)``.
        inputs: the example's tensors.
    """
    stays = np.append(kept, True)[graph.channel_of]

    def present(name: str) -> _Present:
        labels = graph.labels.get(name)
        flat = labels if isinstance(labels, tuple) else ()
        return [np.flatnonzero(stays[atoms]) if isinstance(atoms, np.ndarray) else None for atoms in flat]

    sampler = _Sampler(program.program, lambda node: str(node.meta.get("origin", f"masked {node.name}")), present)
    torch.manual_seed(0)
    outputs = sampler.run(*program.operands(keep, inputs))
    return list(outputs), sampler.samples


def diverging_value(
    graph: DependencyGraph,
    masked: Samples,
    recorded: Trace,
    weights: Mapping[str, Tensor],
    inputs: tuple[Tensor, ...],
) -> fx.Node | None:
    """The first node of the network whose value in the pruned one is another than in the exact masked program.

    Args:
        graph: of the original.
        masked: samples of its exact masked program.
        recorded: the record of the pruned network.
        weights: its tensors by name.
        inputs: the example's tensors.

    Returns:
        None also where the two networks do not call the same ops.
    """
    if recorded.operations != graph.trace.operations:
        return None
    pruned = _samples_of_trace(recorded, weights, inputs)
    for node, other in zip(graph.trace.steps, recorded.steps, strict=False):
        if node.name in masked and other.name in pruned:
            operands = [masked[n.name].size for n in node.all_input_nodes if n.name in masked]
            if _differs(pruned[other.name], masked[node.name], max(operands, default=0.0)):
                return node
    return None


def _samples_of_trace(trace: Trace, weights: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> Samples:
    sampler = _Sampler(trace.as_module(), lambda node: node.name, lambda name: [])
    torch.manual_seed(0)
    tensors = [weights[spec.name].detach().clone() for spec in trace.tensors.values()]
    sampler.run(*tensors, *(tensor.clone() for tensor in inputs))
    return sampler.samples


def _sample(value: Tensor, present: _Present) -> _Sample:
    """Entries at evenly spaced places among those that are present."""
    full = [np.arange(size) for size in value.shape]
    indices = [a if b is None else b for a, b in zip(full, present or [None] * value.dim(), strict=True)]
    shape = [len(index) for index in indices]
    count = int(np.prod(shape, dtype=np.int64))
    places = np.unique(np.linspace(0, max(count - 1, 0), min(count, _PLACES)).astype(np.int64))
    at = np.unravel_index(places, shape) if shape else ()
    where = tuple(torch.from_numpy(index[i]).to(value.device) for index, i in zip(indices, at, strict=True))
    entries = value.detach()[where] if where else value.detach().reshape(-1)
    return _Sample(shape, entries.to(torch.complex128 if value.is_complex() else torch.float64))


def _differs(found: _Sample, expected: _Sample, operands: float) -> bool:
    if found.shape != expected.shape:
        return False  # of some values the masked program has all indices and says by masks which of them count
    limit = max(_RELATIVE * expected.size, _OF_OPERANDS * operands)
    wrong = ~((found.entries - expected.entries).abs() <= limit) & expected.entries.isfinite()
    return float(wrong.double().mean()) > _MANY
