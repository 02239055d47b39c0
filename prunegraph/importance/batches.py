"""Batches on which a recorded forward pass is run again."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch

from prunegraph.capture.example import Nested, call_arguments
from prunegraph.errors import InputError
from prunegraph.graph import DependencyGraph
from prunegraph.ir.trace import Trace, ValueSpec

GraphOf: TypeAlias = Callable[..., DependencyGraph]
"""Takes inputs to the network's dependency graph for inputs of their shapes."""


def graph_for(inputs: Any, graph: DependencyGraph, graph_of: GraphOf | None) -> DependencyGraph:
    """The dependency graph for a batch's inputs: the example's, where there is no other."""
    args, kwargs = call_arguments(inputs)
    return graph if graph_of is None else graph_of(*args, **kwargs)


def batches_of(data: Iterable[Any]) -> Iterator[Any]:
    """The batches, at least one.

    Raises:
        InputError: there is none.
    """
    found = False
    for batch in data:
        found = True
        yield batch
    if not found:
        raise InputError(
            "there is no batch in the data; a generator can be gone through only once: give a list or a DataLoader"
        )


def pair_of(batch: Any, where: str) -> tuple[Any, Any]:
    """The inputs and targets of a batch.

    Raises:
        InputError: it is no pair.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError(f"{where} must be a pair (inputs, targets), not {type(batch).__name__}")
    return batch[0], batch[1]


def recorded_inputs(trace: Trace, inputs: Any, where: str) -> tuple[torch.Tensor, ...]:
    """The input tensors of a batch in the order of the record.

    Raises:
        InputError: they have other shapes than those that the network was recorded on.
    """
    tensors = Nested.of_call(*call_arguments(inputs), trace.keywords).tensors
    recorded = [trace.values[name] for name in trace.inputs]
    if [ValueSpec(shape=tuple(t.shape), dtype=t.dtype) for t in tensors] != recorded:
        raise InputError(
            f"{where} has inputs {_listed(tensors)}, but the network was recorded on {_listed(recorded)}; give "
            "inputs of one of the batches as example inputs, and batches of one size (drop_last=True)"
        )
    return tensors


def _listed(specs: Iterable[Any]) -> str:
    return ", ".join(f"{tuple(spec.shape)} {str(spec.dtype).removeprefix('torch.')}" for spec in specs) or "(none)"
