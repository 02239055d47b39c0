"""What tells one network from another when all its tensors have the same names and shapes: classes and settings."""

from collections.abc import Mapping
from typing import Any

from torch import nn

_FOR_TRAINING_ONLY = frozenset({"p", "dropout", "momentum", "inplace"})
"""Settings that a user may change for fine-tuning without changing what the network computes in evaluation."""


def structure_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Module path -> class name and settings (stride, dilation, eps: what the class names in ``__constants__``)."""
    return {
        path: {"class": type(module).__name__, "settings": _settings(module)} for path, module in model.named_modules()
    }


def first_difference(saved: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The first module that differs, in words; settings that only one side knows do not count."""
    for path in dict.fromkeys([*saved, *found]):
        name = path or "the network itself"
        if path not in saved or path not in found:
            return f"{name} exists only in {'the saved network' if path in saved else 'this one'}"
        there, here = saved[path], found[path]
        if there["class"] != here["class"]:
            return f"{name} is a {there['class']} there, a {here['class']} here"
        for setting in there["settings"].keys() & here["settings"].keys():
            if there["settings"][setting] != here["settings"][setting]:
                values = there["settings"][setting], here["settings"][setting]
                return f"{name} ({there['class']}) has {setting}={values[0]} there, {setting}={values[1]} here"
    return None


def _settings(module: nn.Module) -> dict[str, Any]:
    names = sorted(set(getattr(type(module), "__constants__", ())) - _FOR_TRAINING_ONLY)
    values = {name: getattr(module, name, None) for name in names}
    return {name: _plain(value) for name, value in values.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, bool | int | float | str)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
