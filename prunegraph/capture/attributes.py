"""Integer attributes of modules: made to remember their name for the time of a capture, and set by surgery.

An attribute is named by the way to it from its module: ``width``, ``sizes[0]``, ``options['width']``,
``config.hidden_size``.
"""

import enum
import re
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from prunegraph.capture.tracked import Journal, track
from prunegraph.ir.sizes import Attribute

_STEP = re.compile(r"\.?([^\W\d]\w*)|\[(\d+)\]|\['([^']*)'\]")
_INTERNAL = frozenset(vars(nn.Module())) | {"_version"}
"""What every module holds for torch's own use."""


def track_attributes(
    model: nn.Module, journal: Journal, *, untouchable: Collection[int] = ()
) -> dict[str, dict[str, int]]:
    """Replaces the integers among the attributes of each module by tracked ones, also in containers and records.

    Args:
        model: a working copy of the user's network, whose attributes are changed in place.
        journal: told of what the code does with sizes.
        untouchable: identities of objects that the copy shares with the user's network.

    Returns:
        module path -> attribute name -> value.
    """
    found: dict[str, dict[str, int]] = {}
    for path, module in model.named_modules():
        tracker = _Tracker(path, journal, untouchable)
        for name, value in list(vars(module).items()):
            if name not in _INTERNAL:
                vars(module)[name] = tracker.tracked(name, value)
        found[path] = tracker.found
    return found


def get_attribute(module: nn.Module, name: str) -> Any:
    """Reads the attribute of that name."""
    value: Any = module
    for step in _steps(name):
        value = getattr(value, step) if isinstance(step, str) else value[step[0]]
    return value


def set_attribute(module: nn.Module, name: str, value: int) -> None:
    """Sets the attribute of that name."""
    _with(module, _steps(name), value)


class _Tracker:
    """Tracks the integers of one module."""

    def __init__(self, path: str, journal: Journal, untouchable: Collection[int]) -> None:
        self.path, self.journal, self.untouchable = path, journal, untouchable
        self.found: dict[str, int] = {}

    def tracked(self, name: str, value: Any) -> Any:
        """The value with its integers tracked; the very same object where there are none."""
        if type(value) is int:
            self.found[name] = value
            return track(value, Attribute(self.path, name, value), self.journal)
        if type(value) in (tuple, list):
            items = [self.tracked(f"{name}[{i}]", item) for i, item in enumerate(value)]
            return type(value)(items) if _differs(items, value) else value
        if type(value) is dict:
            pairs = {key: self.tracked(f"{name}[{key!r}]", item) for key, item in value.items()}
            return pairs if _differs(pairs.values(), value.values()) else value
        if _is_record(value) and id(value) not in self.untouchable:
            for key, item in vars(value).items():
                if type(item) is int:
                    object.__setattr__(value, key, self.tracked(f"{name}.{key}", item))
        return value


def _is_record(value: Any) -> bool:
    """A plain object that holds settings: a dataclass, a namespace, a config."""
    known = isinstance(value, nn.Module | torch.Tensor | enum.Enum | type) or callable(value)
    return hasattr(value, "__dict__") and not known and not type(value).__module__.startswith("torch.")


def _differs(new: Any, old: Any) -> bool:
    return any(a is not b for a, b in zip(new, old, strict=True))


def _steps(name: str) -> list[str | tuple[int | str]]:
    """``config.sizes[0]`` -> "config", "sizes", (0,)."""
    steps: list[str | tuple[int | str]] = []
    for attribute, index, key in _STEP.findall(name):
        steps.append(attribute or ((int(index),) if index else (key,)))
    return steps


def _with(holder: Any, steps: list[str | tuple[int | str]], value: int) -> Any:
    """The holder with the value at the end of the steps: containers are made anew, objects are changed."""
    if not steps:
        return value
    step, *rest = steps
    if isinstance(step, str):
        object.__setattr__(holder, step, _with(getattr(holder, step), rest, value))
        return holder
    if isinstance(holder, dict):
        return {**holder, step[0]: _with(holder[step[0]], rest, value)}
    items = list(holder)
    items[int(step[0])] = _with(items[int(step[0])], rest, value)
    return type(holder)(items)
