"""Finds out what a forward pass keeps in the network for the next one, by taking it away.

A network that has run may hold tensors that its code computes when they are missing or too short: positional
encodings, rotary tables, fused kernels. A record of such a network shows them as they are. How they are made, and so
whether they follow when channels go, shows only a run that makes them anew.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from prunegraph.capture.clone import independent_copy, lasting_tensors, named_tensors
from prunegraph.capture.example import Nested, normalise_example
from prunegraph.capture.modes import in_mode
from prunegraph.capture.state import undisturbed

_MISSING = object()

_Way: TypeAlias = Callable[[nn.Module, str], None]


@dataclass(frozen=True, slots=True)
class _Holder:
    """An attribute that holds a tensor, or a container with some; the same one of every module of a class."""

    attribute: str
    modules: tuple[str, ...]
    is_lasting: bool
    is_doubtful: bool

    @property
    def ways(self) -> Sequence["_Way"]:
        """What can be tried: what a state dict holds is never missing in a fresh network."""
        shortened = (*_QUARTERED, *_ALMOST_EMPTIED)
        return shortened if self.is_lasting else (_clear, _forget, *shortened)

    def empty(self, network: nn.Module, way: _Way) -> None:
        """Takes away what the modules of a copy hold."""
        for path in self.modules:
            way(network.get_submodule(path), self.attribute)

    def values(self, network: nn.Module) -> list[Any]:
        """What each module holds; None where the attribute is gone."""
        return [getattr(network.get_submodule(path), self.attribute, None) for path in self.modules]


@dataclass(frozen=True, slots=True)
class ColdRun:
    """How to run the network so that it makes anew what it holds.

    Attributes:
        ways: what takes away that which each attribute holds.
        example: inputs for which the rest is too short.
    """

    ways: Mapping[_Holder, _Way]
    example: Nested

    def prepare(self, network: nn.Module) -> None:
        """Empties the attributes of a copy of the network."""
        for holder, way in self.ways.items():
            holder.empty(network, way)


def cold_run(model: nn.Module, example_inputs: Any, names: Mapping[str, bool]) -> ColdRun | None:
    """A run in which those of the named tensors are made anew that a forward pass makes anew.

    Args:
        model: the network; left as it is.
        example_inputs: as for `build_graph`.
        names: tensors that are no parameters, and whether each may be computed from what the run did not read. Then it
            may be outgrown even where a part of it is enough: a counter beside it can say how much of it is filled.

    Returns:
        None if it makes none of them anew.
    """
    example = normalise_example(example_inputs)
    holders = list(_holders(model, names))
    tried = {holder: _tried(model, example, holder) for holder in holders}
    ways = {holder: way for holder, (way, _) in tried.items() if way}
    ways |= {holder: way for holder in holders if holder not in ways and (way := _rewound(model, example, holder))}
    others = [h for h, (_, is_enough) in tried.items() if h not in ways and (h.is_doubtful or not is_enough)]
    longer = next((it for it in _longer(example) if _outgrown(model, example, it, others)), None) if others else None
    return ColdRun(MappingProxyType(ways), longer or example) if ways or longer else None


def renew(network: nn.Module, example_inputs: Any, names: Iterable[str]) -> None:
    """Puts what a forward pass leaves in the modules of the named tensors in place of what an earlier one left there.

    What depends on the values of the example, as states of a stream do, begins with zeros.

    Args:
        network: is changed.
        example_inputs: as for `build_graph`.
        names: tensors that a forward pass of the example does not read, such as tables for inputs of another length.
    """
    paths = sorted({name.partition("[")[0].rpartition(".")[0] for name in names})
    if not paths:
        return
    example = normalise_example(example_inputs)
    negated = replace(example, tensors=tuple(-t if t.is_floating_point() else t for t in example.tensors))
    left, left_otherwise = _left_by(network, example, paths), _left_by(network, negated, paths)
    for (path, name), value in left.items():
        module = network.get_submodule(path)
        is_buffer = name in module._buffers
        if not is_buffer or name in module._non_persistent_buffers_set:  # what a state dict holds is the plan's
            held = module._buffers if is_buffer else vars(module)
            held[name] = _common(value, left_otherwise.get((path, name)))


def _left_by(network: nn.Module, example: Nested, paths: Sequence[str]) -> dict[tuple[str, str], Any]:
    """Module path and attribute -> what a forward pass puts there."""
    ran = in_mode(independent_copy(network), training=False)
    before = {path: _held_by(ran.get_submodule(path)) for path in paths}
    if not _runs(ran, example):
        return {}
    after = ((path, name, value) for path in paths for name, value in _held_by(ran.get_submodule(path)).items())
    changed = {(path, name): value for path, name, value in after if value is not before[path].get(name, _MISSING)}
    return {place: value for place, value in changed.items() if not isinstance(value, nn.Module)}


def _common(value: Any, other: Any) -> Any:
    """The value, with zeros in place of tensors that are not the same in the other."""
    ours, theirs = tree_flatten(value), tree_flatten(other)
    if ours[1] != theirs[1]:
        return value
    pairs = zip(ours[0], theirs[0], strict=True)
    same = [torch.zeros_like(a) if isinstance(a, torch.Tensor) and not _same(a, b) else a for a, b in pairs]
    return tree_unflatten(same, ours[1])


def _held_by(module: nn.Module) -> dict[str, Any]:
    """Its attributes and its buffers."""
    return {**vars(module), **module._buffers}


def _holders(model: nn.Module, names: Mapping[str, bool]) -> Iterator[_Holder]:
    modules = dict(model.named_modules())
    found: dict[tuple[type, str], dict[str, bool]] = {}
    for name in sorted(names):
        path, _, attribute = name.partition("[")[0].rpartition(".")
        kind = type(modules.get(path))
        if path in modules and not kind.__module__.startswith("torch."):
            of_kind = found.setdefault((kind, attribute), {})
            of_kind[path] = of_kind.get(path, False) or names[name]
    lasting = lasting_tensors(model)
    for (_, attribute), doubts in found.items():
        is_lasting = any((f"{path}.{attribute}" if path else attribute) in lasting for path in doubts)
        yield _Holder(attribute, tuple(doubts), is_lasting, is_doubtful=any(doubts.values()))


def _tried(model: nn.Module, example: Nested, holder: _Holder) -> tuple[_Way | None, bool]:
    """The way of taking it away after which a forward pass has made it anew, and whether a quarter of it is enough.

    If so, inputs four times as long do not outgrow the whole; much longer ones may.
    """
    is_enough = False
    hopeless: set[_Way] = set()
    for way in holder.ways:
        if way in hopeless or (is_enough and way in _QUARTERED):
            continue
        network = in_mode(independent_copy(model), training=False)
        before = _sizes(holder.values(network))
        holder.empty(network, way)
        emptied = holder.values(network)
        if _sizes(emptied) == before:
            continue
        if not _runs(network, example):
            hopeless |= {_LESS_THAN[way]} if way in _LESS_THAN else set()
            continue
        if any(_is_made(*values) for values in zip(holder.values(network), emptied, strict=True)):
            return way, False
        is_enough |= way in _QUARTERED
    return None, is_enough


def _rewound(model: nn.Module, example: Nested, holder: _Holder) -> _Way | None:
    """The way of setting back a number beside it, such as how many rows are filled, after which it is written anew."""
    for name in _counters(model.get_submodule(holder.modules[0])) if holder.is_doubtful else ():
        way = partial(_rewind, name)
        network = in_mode(independent_copy(model), training=False)
        holder.empty(network, way)
        held = holder.values(network)
        before = _versions(held)
        if _runs(network, example) and before != _versions(holder.values(network)):
            return way
    return None


def _counters(module: nn.Module) -> list[str]:
    numbers = [name for name, value in vars(module).items() if type(value) is int and value]
    buffers = module.named_buffers(recurse=False)
    return [*numbers, *(name for name, value in buffers if not value.dim() and value.dtype == torch.int64)]


def _versions(values: Iterable[Any]) -> list[tuple[int, int]]:
    """Others as soon as something was written into a tensor, be it the same again."""
    return [(id(value), value._version) for value in values if isinstance(value, torch.Tensor)]


def _longer(example: Nested) -> Iterator[Nested]:
    """Four times as long along each dimension but the first; one dimension alone makes lengths, rates and the like."""
    for place in range(1, max((tensor.dim() for tensor in example.tensors), default=0)):
        tensors = [torch.cat([t] * 4, -place) if t.dim() > max(place, 1) else t for t in example.tensors]
        yield replace(example, tensors=tuple(tensors))


def _outgrown(model: nn.Module, example: Nested, longer: Nested, holders: Sequence[_Holder]) -> bool:
    """Whether a forward pass leaves other tensors for the longer example, and the same ones for the example itself."""
    network = in_mode(independent_copy(model), training=False)

    def changed_by(inputs: Nested) -> bool:
        before = _copied([holder.values(network) for holder in holders])
        ran = _runs(network, inputs)
        return ran and not _same(before, [holder.values(network) for holder in holders])

    changed_by(example)
    return not changed_by(example) and changed_by(longer)


def _copied(values: Any) -> Any:
    return tree_map_only(torch.Tensor, torch.clone, values)


def _same(left: Any, right: Any) -> bool:
    """Whether both hold equal tensors, and the same of everything else."""
    ours, theirs = tree_flatten(left), tree_flatten(right)
    pairs = zip(ours[0], theirs[0], strict=False)
    return ours[1] == theirs[1] and all(
        a.shape == b.shape and torch.equal(a, b)
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        else a is b
        for a, b in pairs
    )


def _sizes(values: Iterable[Any]) -> list[torch.Size | int | None]:
    """Shapes of tensors, lengths of containers, and None for nothing."""
    containers = (list, dict)
    return [v.shape if isinstance(v, torch.Tensor) else len(v) if isinstance(v, containers) else None for v in values]


def _runs(network: nn.Module, example: Nested) -> bool:
    with undisturbed([*named_tensors(network).values(), *example.tensors]):
        args, kwargs = example.rebuild([tensor.clone() for tensor in example.tensors])
        try:
            network(*args, **kwargs)
        except Exception:  # it cannot do without, or not with more
            return False
    return True


def _is_made(after: Any, emptied: Any) -> bool:
    return bool(after) if isinstance(after, list | dict) else isinstance(after, torch.Tensor) and after is not emptied


def _clear(module: nn.Module, attribute: str) -> None:
    held = getattr(module, attribute)
    if isinstance(held, list | dict):
        setattr(module, attribute, type(held)())
    else:
        delattr(module, attribute)


def _forget(module: nn.Module, attribute: str) -> None:
    setattr(module, attribute, None)


def _rewind(name: str, module: nn.Module, attribute: str) -> None:
    held = getattr(module, name)
    setattr(module, name, torch.zeros_like(held) if isinstance(held, torch.Tensor) else 0)


def _shorten(dim: int, length: Callable[[int], int], module: nn.Module, attribute: str) -> None:
    """To the first part along one dimension."""
    held = getattr(module, attribute)
    if isinstance(held, torch.Tensor) and held.dim() > max(dim, 1):  # the only dimension is that of the channels
        setattr(module, attribute, held.narrow(dim, 0, min(length(held.shape[dim]), held.shape[dim])))


def _quarter(size: int) -> int:
    return -(-size // 4)


def _two(_: int) -> int:
    """Few enough for anything to be too long; what has one index only would fit all sizes."""
    return 2


_QUARTERED: tuple[_Way, ...] = tuple(partial(_shorten, dim, _quarter) for dim in range(3))
"""A quarter of a tensor: inputs four times as long would find the whole too short as well."""

_ALMOST_EMPTIED: tuple[_Way, ...] = tuple(partial(_shorten, dim, _two) for dim in range(3))

_LESS_THAN: Mapping[_Way, _Way] = dict(zip(_QUARTERED, _ALMOST_EMPTIED, strict=True))
"""What leaves still less: a network that neither goes on with a quarter nor makes it anew does so with less neither."""
