"""Example inputs and outputs: nested Python values with tensors in them."""

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from prunegraph.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """Nested Python values with the tensors apart from their structure.

    Attributes:
        tensors: the tensors in order of their standing.
        leaves: all flat values; a tensor's place holds the class ``torch.Tensor``, that of an object an `_Object`.
        structure: how the flat values are nested.
    """

    tensors: tuple[torch.Tensor, ...]
    leaves: tuple[Any, ...]
    structure: Any

    @classmethod
    def of(cls, value: Any) -> "Nested":
        """Takes tuples, lists, dicts, dataclasses and other objects that hold tensors apart."""
        flat, structure = pytree.tree_flatten(value)
        tensors: list[torch.Tensor] = []
        leaves: list[Any] = []
        for leaf in flat:
            parts = None if isinstance(leaf, torch.Tensor) else _parts(leaf)
            if isinstance(leaf, torch.Tensor):
                tensors.append(leaf)
                leaves.append(torch.Tensor)
            elif parts is not None and (inside := cls.of(parts)).tensors:
                tensors.extend(inside.tensors)
                leaves.append(_Object(empty=_with_parts(leaf, dict.fromkeys(parts)), parts=inside.without_tensors()))
            else:
                leaves.append(leaf)
        return cls(tensors=tuple(tensors), leaves=tuple(leaves), structure=structure)

    @classmethod
    def of_call(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any], keywords: Iterable[str]) -> "Nested":
        """Takes the arguments of a call apart, those by keyword in the given order, whatever the caller's."""
        return cls.of((args, {name: kwargs[name] for name in keywords if name in kwargs} | dict(kwargs)))

    def rebuild(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The nested value with the given tensors in the places of its own."""
        remaining = iter(tensors)
        value = self._filled(remaining)
        if next(remaining, None) is not None:
            raise ValueError("more tensors than places")
        return value

    def arguments(self, tensors: Sequence[torch.Tensor]) -> Any:
        """Of an example: a tuple of positional arguments or a dict of keyword arguments, with these tensors."""
        args, kwargs = self.rebuild(tensors)
        return kwargs if kwargs and not args else args

    def twice(self) -> "Nested":
        """A batch of two: tensors joined with themselves, but for lists of numbers of another length than the batch."""
        batch = next((tensor.shape[0] for tensor in self.tensors if tensor.dim() > 1), None)
        doubled = [t.dim() > 1 or (t.dim() == 1 and t.shape[0] == batch) for t in self.tensors]
        pairs = zip(self.tensors, doubled, strict=True)
        return replace(self, tensors=tuple(torch.cat([t, t]) if double else t for t, double in pairs))

    def without_tensors(self) -> "Nested":
        """The structure alone."""
        return Nested(tensors=(), leaves=self.leaves, structure=self.structure)

    def _filled(self, tensors: Iterator[torch.Tensor]) -> Any:
        leaves: list[Any] = []
        for leaf in self.leaves:
            if leaf is torch.Tensor:
                leaves.append(next(tensors))
            elif isinstance(leaf, _Object):
                leaves.append(_with_parts(leaf.empty, leaf.parts._filled(tensors)))
            else:
                leaves.append(leaf)
        return pytree.tree_unflatten(leaves, self.structure)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    """An object that pytree does not look into: the object without its parts, and the parts."""

    empty: Any
    parts: Nested


def _parts(leaf: Any) -> dict[Any, Any] | None:
    """What an object is made of by name; None for what is taken as a whole."""
    if isinstance(leaf, dict):
        return dict(leaf)
    if isinstance(leaf, tuple | list):
        return dict(enumerate(leaf))
    if isinstance(leaf, type | torch.nn.Module) or callable(leaf):
        return None
    if dataclasses.is_dataclass(leaf):
        return {field.name: getattr(leaf, field.name) for field in dataclasses.fields(leaf)}
    return dict(vars(leaf)) if hasattr(leaf, "__dict__") else None


def _with_parts(original: Any, parts: dict[Any, Any]) -> Any:
    """A copy of the object with other parts."""
    if isinstance(original, tuple):
        return tuple.__new__(type(original), parts.values())
    copied = copy.copy(original)
    if isinstance(copied, dict | list):
        for key, part in parts.items():
            copied[key] = part
    else:
        for name, part in parts.items():
            object.__setattr__(copied, name, part)
    return copied


def normalise_example(example_inputs: Any) -> Nested:
    """Reads a tensor, a tuple (or list) of positional arguments, or a dict of keyword arguments.

    Returns:
        The pair (positional arguments, keyword arguments), taken apart.

    Raises:
        InputError: it is none of these, or holds no tensor, or one without values.
    """
    nested = Nested.of(call_arguments(example_inputs))
    if not nested.tensors:
        raise InputError("the example inputs hold no tensor; give a tensor, a tuple, or a dict of keyword arguments")
    if any(tensor.is_meta for tensor in nested.tensors):
        raise InputError("an example input is on the meta device, where nothing can be computed; give real values")
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
