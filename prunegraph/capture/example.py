"""Example inputs and outputs: nested Python values with tensors in them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from prunegraph.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """Nested Python values with the tensors apart from their structure.

    Attributes:
        tensors: the tensors in order of their standing.
        leaves: all flat values; the tensors' places hold None.
        places: index into ``leaves`` of each tensor.
        structure: how the flat values are nested.
    """

    tensors: tuple[torch.Tensor, ...]
    leaves: tuple[Any, ...]
    places: tuple[int, ...]
    structure: Any

    @classmethod
    def of(cls, value: Any) -> "Nested":
        """Takes tuples, lists, dicts and dataclasses apart; a dataclass is put together again as a dict."""
        leaves, structure = pytree.tree_flatten(_without_dataclasses(value))
        places = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor))
        return cls(
            tensors=tuple(leaves[i] for i in places),
            leaves=tuple(None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves),
            places=places,
            structure=structure,
        )

    def rebuild(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The nested value with the given tensors in the places of its own."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        return pytree.tree_unflatten(leaves, self.structure)

    def without_tensors(self) -> "Nested":
        """The structure alone."""
        return Nested(tensors=(), leaves=self.leaves, places=self.places, structure=self.structure)


def _without_dataclasses(value: Any) -> Any:
    def opened(leaf: Any) -> Any:
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            return _without_dataclasses({f.name: getattr(leaf, f.name) for f in dataclasses.fields(leaf)})
        return leaf

    return pytree.tree_map(opened, value)


def normalise_example(example_inputs: Any) -> Nested:
    """Reads a tensor, a tuple (or list) of positional arguments, or a dict of keyword arguments.

    Returns:
        The pair (positional arguments, keyword arguments), taken apart.

    Raises:
        InputError: it is none of these, or holds no tensor.
    """
    nested = Nested.of(call_arguments(example_inputs))
    if not nested.tensors:
        raise InputError("the example inputs hold no tensor; give a tensor, a tuple, or a dict of keyword arguments")
    return nested


def call_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call with these inputs.

    Raises:
        InputError: the inputs are neither a tensor, nor a tuple, nor a dict with names as keys.
    """
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    if isinstance(example_inputs, dict) and all(isinstance(key, str) for key in example_inputs):
        return (), dict(example_inputs)
    raise InputError(
        f"example inputs of type {type(example_inputs).__name__} are not understood; give a tensor, a tuple of "
        "positional arguments, or a dict of keyword arguments"
    )
