"""Integer attributes of modules: made to remember their name for the time of a capture, and set by surgery."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from prunegraph.capture.tracked import EqualityJournal, track
from prunegraph.ir.sizes import Attribute


def track_attributes(model: nn.Module, journal: EqualityJournal) -> dict[str, dict[str, int]]:
    """Replaces the integers among the attributes of each module by tracked ones, also inside containers.

    Returns:
        module path -> attribute name -> value; containers are indexed as in ``kernel_size[0]``.
    """
    return {path: _track_module(path, module, journal) for path, module in model.named_modules()}


def set_attribute(module: nn.Module, name: str, value: int) -> None:
    """Sets ``name``, which may index into containers (``size[0]``, ``config['width']``), to ``value``."""
    attribute, *keys = _keys(name)
    old = getattr(module, str(attribute))
    setattr(module, str(attribute), _with_item(old, keys, value))


def get_attribute(module: nn.Module, name: str) -> Any:
    """Reads ``name``, which may index into containers."""
    attribute, *keys = _keys(name)
    value = getattr(module, str(attribute))
    for key in keys:
        value = value[key]
    return value


def _track_module(path: str, module: nn.Module, journal: EqualityJournal) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, value in list(vars(module).items()):
        if name in _INTERNAL or not isinstance(value, int | tuple | list | dict):
            continue
        tracked = _tracked(path, name, value, journal, found)
        if tracked is not value:
            vars(module)[name] = tracked
    return found


_INTERNAL = frozenset(vars(nn.Module())) | {"_version"}
"""What every module holds for torch's own use."""


def _tracked(path: str, name: str, value: Any, journal: EqualityJournal, found: dict[str, int]) -> Any:
    """The value with its integers tracked; the very same object where there are none."""
    if type(value) is int:
        found[name] = value
        return track(value, Attribute(path, name, value), journal)
    if type(value) in (tuple, list):
        items = [_tracked(path, f"{name}[{i}]", item, journal, found) for i, item in enumerate(value)]
        return type(value)(items) if _differs(items, value) else value
    if type(value) is dict:
        pairs = {key: _tracked(path, f"{name}[{key!r}]", item, journal, found) for key, item in value.items()}
        return pairs if _differs(pairs.values(), value.values()) else value
    return value


def _differs(new: Any, old: Any) -> bool:
    return any(a is not b for a, b in zip(new, old, strict=True))


def _keys(name: str) -> Iterator[int | str]:
    """``size[0]['a']`` -> "size", 0, "a"."""
    attribute, _, rest = name.partition("[")
    yield attribute
    for key in rest.removesuffix("]").split("][") if rest else ():
        yield key[1:-1] if key[:1] in "'\"" else int(key)


def _with_item(container: Any, keys: list[int | str], value: int) -> Any:
    if not keys:
        return value
    if isinstance(container, dict):
        return {**container, keys[0]: _with_item(container[keys[0]], keys[1:], value)}
    items = list(container)
    items[int(keys[0])] = _with_item(items[int(keys[0])], keys[1:], value)
    return type(container)(items)
