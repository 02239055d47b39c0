"""Values that are the same at every index, such as the zeros with which recurrent states begin.

Where code cuts one such tensor into the states of several layers, which index of it goes is all one: each part has
atoms of its own, and only as many must stay in one as in the other.
"""

import operator
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from prunegraph.dependency.label_space import LabelSpace, SizeUse
from prunegraph.rules.base import packet

_ATEN = torch.ops.aten
_CREATED = {getattr(_ATEN, name) for name in ["zeros", "ones", "full", "new_zeros", "new_ones", "new_full"]}
_VIEWS = "slice select narrow unbind chunk split unsqueeze squeeze expand transpose detach alias to contiguous"
_PARTS = {operator.getitem, *(getattr(_ATEN, name) for name in _VIEWS.split())}


class UniformValues:
    """Follows such values through the ops that cut and turn them; their sizes count where anything else reads them."""

    def __init__(self, space: LabelSpace) -> None:
        self._space = space
        self._uses: dict[str, list[SizeUse]] = {}
        self._read: set[str] = set()
        self._given: set[tuple[str, int]] = set()

    def note_read(self, node: fx.Node) -> None:
        """A call takes its operands."""
        for operand in node.all_input_nodes if not _is_part(node) else ():
            if operand.name in self._uses and operand.name not in self._read:
                self._read.add(operand.name)
                self._space.uses += self._uses[operand.name]

    def labels_of(self, node: fx.Node, labels: Any, first: int) -> Any:
        """The labels of a call's value, given those of its rule and the number of size uses that there were before."""
        if packet(node) in _CREATED and not _is_written(node):
            self._uses[node.name] = self._space.uses[first:]
            del self._space.uses[first:]
        elif _is_part(node) and node.all_input_nodes[0].name in self._uses:
            return self._apart(node, labels)
        return labels

    def _apart(self, node: fx.Node, labels: Any) -> Any:
        """Other atoms for the dimensions that a part has as a whole, but for the first part: it has those of the whole.

        Several parts get theirs when they are taken.
        """
        whole = node.all_input_nodes[0].name
        self._uses[node.name] = uses = list(self._uses[whole])
        if any(isinstance(item, tuple) for item in labels):
            return labels
        own = list(labels)
        for dim, atoms in enumerate(labels):
            counted = [number for number, use in enumerate(uses) if atoms is not None and use.atoms is atoms]
            if counted and (whole, id(atoms)) in self._given:
                own[dim] = self._space.fresh(len(atoms))
                for number in counted:
                    uses[number] = replace(uses[number], atoms=own[dim], is_interchangeable=True)
            self._given.add((whole, id(atoms)))
        return tuple(own)


def _is_part(node: fx.Node) -> bool:
    return packet(node) in _PARTS and len(node.all_input_nodes) == 1


def _is_written(node: fx.Node) -> bool:
    """Whether an op writes into the value or into a part of it, or the network gives it out."""
    return any(user.op == "output" or _writes(user) or (_is_part(user) and _is_written(user)) for user in node.users)


def _writes(node: fx.Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))
