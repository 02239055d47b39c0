"""Finding plug-ins: a pluggy manager made when asked for, never kept in a global."""

import difflib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, TypeVar

import pluggy
from torch._ops import OpOverload

from prunegraph.errors import CriterionError, PluginError
from prunegraph.plugin import hookspecs
from prunegraph.plugin.contracts import Criterion, fault_of
from prunegraph.rules.base import Rule
from prunegraph.rules.book import RuleBook

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def create_manager(*plugins: object) -> pluggy.PluginManager:
    """Makes a manager with the installed plug-ins of entry-point group ``prunegraph`` and the given ones.

    Args:
        plugins: modules or objects with functions marked by `prunegraph.hookimpl`, beside the installed ones.

    Raises:
        PluginError: a plug-in cannot be imported, or implements a hook that does not exist; names the plug-in.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for entry in sorted(entry_points(group=hookspecs.PROJECT), key=_label):
        _register(manager, _load(entry), _label(entry))
    for plugin in plugins:
        _register(manager, plugin, getattr(plugin, "__name__", type(plugin).__name__))
    return manager


def load_criteria(manager: pluggy.PluginManager) -> Mapping[str, Criterion]:
    """Collects the criteria of all plug-ins, ``name -> criterion``, in alphabetical order.

    Raises:
        PluginError: a plug-in offers something that is no criterion, or two offer the same name; names both.
    """
    offers = [
        (plugin, _checked(plugin, criterion).name, criterion)
        for plugin, criteria in _answers(manager, "prunegraph_criteria", (list, tuple))
        for criterion in criteria
    ]
    return _unique(sorted(offers, key=lambda offer: offer[1]), "a criterion named")


def load_op_rules(manager: pluggy.PluginManager) -> Mapping[OpOverload, Rule]:
    """Collects the op rules of all plug-ins, ``operator -> rule``.

    Raises:
        PluginError: a plug-in offers something that is no rule, or one for an operator that has one in prunegraph;
            two plug-ins offer a rule for the same operator; names the plug-ins.
    """
    built_in = RuleBook()
    offers = []
    for plugin, rules in _answers(manager, "prunegraph_op_rules", (Mapping,)):
        for op, rule in rules.items():
            if isinstance(rule, type) or not isinstance(rule, Rule):
                raise PluginError(
                    f"plug-in {plugin!r} offers {rule!r} for operator {op!s}; expected an object of a Rule"
                )
            if built_in.find(op) is not None:
                raise PluginError(f"plug-in {plugin!r} offers a rule for operator {op!s}, which has one in prunegraph")
            offers.append((plugin, op, rule))
    return _unique(offers, "a rule for operator")


def find_criterion(name: str, criteria: Mapping[str, Criterion] | None = None) -> Criterion:
    """Finds a criterion by name.

    Args:
        name: what the user asked for.
        criteria: where to look; all installed plug-ins when None.

    Raises:
        CriterionError: there is none of this name; lists those there are, and the closest ones.
    """
    known = load_criteria(create_manager()) if criteria is None else criteria
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise CriterionError(f"no criterion is named {name!r}; {hint}there are: {', '.join(known) or 'none'}")


def _label(entry: EntryPoint) -> str:
    return f"{entry.dist.name if entry.dist else 'unknown distribution'}:{entry.name}"


def _load(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:
        raise PluginError(
            f"plug-in {_label(entry)!r} ({entry.value}) cannot be imported: {type(error).__name__}: {error}; "
            "mend it or uninstall its distribution"
        ) from error


def _register(manager: pluggy.PluginManager, plugin: object, label: str) -> None:
    try:
        manager.register(plugin, name=label)
        manager.check_pending()
    except (ValueError, pluggy.PluginValidationError) as error:
        raise PluginError(f"plug-in {label!r} cannot be registered: {error}") from error
    marked = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    for hook in sorted({name for name in vars(hookspecs) if name.startswith(f"{hookspecs.PROJECT}_")} - marked):
        if hasattr(plugin, hook):
            raise PluginError(f"plug-in {label!r} has a function {hook} that is not marked: put @hookimpl above it")


def _answers(manager: pluggy.PluginManager, hook: str, kinds: tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    """What each plug-in returns from a hook, by name of the plug-in; pluggy's own call would lose the names."""
    for plugin in sorted(getattr(manager.hook, hook).get_hookimpls(), key=lambda found: found.plugin_name):
        try:
            answer = plugin.function()
        except Exception as error:
            raise PluginError(
                f"hook {hook} of plug-in {plugin.plugin_name!r} failed: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(answer, kinds):
            wanted = " or a ".join("dict" if kind is Mapping else kind.__name__ for kind in kinds)
            raise PluginError(
                f"hook {hook} of plug-in {plugin.plugin_name!r} returned {answer!r}; it must return a {wanted}"
            )
        yield plugin.plugin_name, answer


def _unique(offers: Iterable[tuple[str, Key, Value]], what: str) -> Mapping[Key, Value]:
    owners: dict[Key, str] = {}
    values: dict[Key, Value] = {}
    for plugin, key, value in offers:
        if key in owners:
            raise PluginError(
                f"plug-ins {owners[key]!r} and {plugin!r} both offer {what} {key!s}; "
                "rename one of them or uninstall its plug-in"
            )
        owners[key], values[key] = plugin, value
    return MappingProxyType(values)


def _checked(plugin: str, criterion: Any) -> Criterion:
    fault = fault_of(criterion)
    if fault:
        raise PluginError(f"plug-in {plugin!r} offers {criterion!r} as a criterion, which {fault}")
    found: Criterion = criterion
    return found
