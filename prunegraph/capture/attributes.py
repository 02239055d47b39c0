"""Integer attributes of modules: made to remember their name for the time of a capture, and set by surgery.

An attribute is named by the way to it from its module: ``width``, ``sizes[0]``, ``options['width']``,
``config.hidden_size``; ``function.width`` is a variable in the closure of a function.
"""

from collections.abc import Collection, Iterator
from types import FunctionType
from typing import Any

import numpy as np
from torch import nn

from prunegraph.capture.literals import Fraction
from prunegraph.capture.settings import (
    class_constants,
    is_sequence,
    number_cells,
    ordinary_attributes,
    parts_of,
    steps_of,
    with_items,
)
from prunegraph.capture.tracked import Journal, track, track_numpy
from prunegraph.ir.sizes import Attribute


def track_attributes(
    model: nn.Module, journal: Journal, *, untouchable: Collection[int] = ()
) -> dict[str, dict[str, int]]:
    """Replaces the integers among the attributes of each module by tracked ones, also in containers and records.

    Those of its class are tracked as attributes of the module, and become such if they change.

    Args:
        model: a working copy of the user's network, whose attributes are changed in place.
        journal: told of what the code does with sizes.
        untouchable: identities of objects that the copy may share with the user's network.

    Returns:
        module path -> attribute name -> value.
    """
    found: dict[str, dict[str, int]] = {}
    done = set(untouchable)
    for path, module in model.named_modules():
        tracker = _Tracker(path, journal, done)
        for name, value in (*ordinary_attributes(module), *class_constants(module)):
            vars(module)[name] = tracker.tracked(name, value)
        found[path] = tracker.found
    return found


def integers_of(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Names and values of the integers among the module's attributes, also in containers and records."""
    seen: set[int] = set()

    def within(name: str, value: Any) -> Iterator[tuple[str, int]]:
        if type(value) is int or isinstance(value, np.integer):
            yield name, int(value)
        elif id(value) not in seen:
            seen.add(id(value))
            for step, item in parts_of(value):
                yield from within(name + step, item)

    for name, value in ordinary_attributes(module):
        yield from within(name, value)


def get_attribute(module: nn.Module, name: str) -> Any:
    """Reads the attribute of that name."""
    value: Any = module
    for step in steps_of(name):
        value = _part(value, step)
    return value


def set_attribute(module: nn.Module, name: str, value: int) -> None:
    """Sets the attribute of that name; a numpy integer stays one."""
    old = get_attribute(module, name)
    _with(module, steps_of(name), type(old)(value) if isinstance(old, np.integer) else value)


class _Tracker:
    """Tracks the integers of one module; ``done`` are identities of objects that need no change, or no further one."""

    def __init__(self, path: str, journal: Journal, done: set[int]) -> None:
        self.path, self.journal, self.done = path, journal, done
        self.found: dict[str, int] = {}

    def tracked(self, name: str, value: Any) -> Any:
        """The value with its integers tracked: a sequence made anew where there are any, else the very same object."""
        if type(value) is int or isinstance(value, np.integer):
            return self._number(name, value)
        if type(value) is float:
            return Fraction(value)
        if is_sequence(value):
            items = [self.tracked(name + step, item) for step, item in parts_of(value)]
            return with_items(value, items) if any(a is not b for a, b in zip(items, value, strict=True)) else value
        if id(value) not in self.done:
            self.done.add(id(value))
            for step, item in list(parts_of(value)):
                _with(value, steps_of(step), self.tracked(name + step, item))
        return value

    def _number(self, name: str, value: Any) -> Any:
        origin = Attribute(self.path, name, int(value))
        self.found[name] = origin.value
        return (track if type(value) is int else track_numpy)(value, origin, self.journal)


def _part(holder: Any, step: str | tuple[int | str]) -> Any:
    if isinstance(holder, FunctionType) and isinstance(step, str):
        return number_cells(holder)[step].cell_contents
    if isinstance(step, str):
        return getattr(holder, step)
    return dict.__getitem__(holder, step[0]) if isinstance(holder, dict) else holder[step[0]]


def _with(holder: Any, steps: list[str | tuple[int | str]], value: Any) -> Any:
    """The holder with the value at the end of the steps: lists and tuples are made anew, other objects are changed."""
    if not steps:
        return value
    step, *rest = steps
    old = _part(holder, step)
    new = _with(old, rest, value)
    if new is old:
        return holder
    if is_sequence(holder):
        return with_items(holder, [new if item_step == step else item for item_step, item in _named(holder)])
    if isinstance(holder, FunctionType):
        number_cells(holder)[str(step)].cell_contents = new
    elif isinstance(step, str):
        object.__setattr__(holder, step, new)
    else:
        dict.__setitem__(holder, step[0], new)
    return holder


def _named(sequence: Any) -> list[tuple[str | tuple[int | str], Any]]:
    return [(steps_of(step)[0], item) for step, item in parts_of(sequence)]
