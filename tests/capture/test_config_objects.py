"""Sizes kept in settings objects - dataclasses, namespaces, dicts - follow the weights, in the pruned network alone."""

import functools
import stat
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import prunegraph
from prunegraph.capture.attributes import integers_of
from prunegraph.capture.clone import clone_with
from prunegraph.errors import UnsupportedModelError


@dataclass(frozen=True)
class Settings:
    width: int = 12


class Pair(NamedTuple):
    rate: int = 8000
    width: int = 12


class SelfDict(dict[str, Any]):
    """Its attributes are its items."""

    def __init__(self, **items: Any) -> None:
        super().__init__(**items)
        self.__dict__ = self


class ItemDict(dict[str, Any]):
    """Looks for attributes among its items, and raises KeyError where there is none."""

    __getattr__ = dict.__getitem__


class NoneDict(dict[str, Any]):
    """Looks for attributes among its items, and gives None where there is none."""

    __getattr__ = dict.get


class Uncopyable:
    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise TypeError("bound to a file")


def given(width: int) -> int:
    return width


def by_name(config: Any) -> Any:
    return config.width


Read = Callable[[Any], int]

KINDS: dict[str, tuple[Any, Read]] = {
    "dataclass": (Settings(), by_name),
    "namespace": (SimpleNamespace(width=12), by_name),
    "dict": ({"width": 12}, lambda c: c["width"]),
    "dict-self": (SelfDict(width=12), by_name),
    "dict-self-by-key": (SelfDict(width=12), lambda c: c["width"]),
    "dict-self-nested": (SelfDict(model=SelfDict(width=12)), lambda c: c.model.width),
    "dict-getitem": (ItemDict(width=12), by_name),
    "dict-get": (NoneDict(width=12), by_name),
    "namedtuple": (Pair(), by_name),
    "namedtuple-in-dict": ({"pair": Pair()}, lambda c: c["pair"].width),
    "numpy": (np.int64(12), lambda c: c),
    "numpy-in-record": (SimpleNamespace(width=np.int32(12)), by_name),
    "size": (torch.Size([3, 12]), lambda c: c[1]),
    "partial": (functools.partial(given, width=12), lambda c: c()),
    "record-in-dict": ({"a": SimpleNamespace(width=12)}, lambda c: c["a"].width),
    "dataclass-in-list": ([0, Settings()], lambda c: c[1].width),
    "list-in-record-in-dict": ({"a": SimpleNamespace(sizes=[12])}, lambda c: c["a"].sizes[0]),
}


class Configured(nn.Module):
    """Reads its width from a settings object, in the way that the test says."""

    def __init__(self, config: Any, read: Read = by_name) -> None:
        super().__init__()
        self.config, self.read = config, read
        self.into, self.out = nn.Linear(5, 12), nn.Linear(12, 5)

    def width(self) -> int:
        return self.read(self.config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.into(x).relu().reshape(-1, self.width())).view(x.shape)


def pruned_to_three(model: nn.Module) -> Any:
    x = torch.randn(2, 3, 5)
    plan = prunegraph.build_graph(model, x).plan({"into.weight[0]": [1, 4, 7]})
    pruned = prunegraph.apply(model, plan)
    prunegraph.verify(model, pruned, plan, x)
    return pruned


@pytest.mark.parametrize("kind", KINDS)
def test_a_width_in_a_settings_object_follows(kind: str) -> None:
    config, read = KINDS[kind]
    model = Configured(config, read)
    before = type(model.width())
    pruned = pruned_to_three(model)
    assert (pruned.width(), type(pruned.width())) == (3, before)
    assert (model.width(), type(model.width())) == (12, before)
    assert type(pruned.config) is type(config)


class OfItsClass(Configured):
    """Its width stands in its class."""

    WIDTH = 12

    def width(self) -> int:
        return self.WIDTH


class OfItsBase(OfItsClass):
    """Its width stands in the class that its class is derived from."""


@pytest.mark.parametrize("kind", [OfItsClass, OfItsBase])
def test_a_width_in_a_class_follows_in_the_pruned_network_alone(kind: type[OfItsClass]) -> None:
    model = kind(None)
    pruned = pruned_to_three(model)
    assert (pruned.WIDTH, model.WIDTH, kind.WIDTH) == (3, 12, 12)
    assert type(pruned) is kind


@pytest.mark.parametrize("kind", [SelfDict, ItemDict, NoneDict])
def test_a_dict_with_attributes_is_copied_with_them(kind: Callable[..., Any]) -> None:
    config = kind(width=12, rate=8000, inner=kind(depth=2), table=torch.ones(2))
    copied: Any = clone_with(Configured(config), {})
    assert (copied.config.rate, copied.config.inner.depth) == (8000, 2)
    copied.config.inner["depth"] = 5
    copied.config.table.zero_()
    assert (config.inner.depth, config.table.tolist()) == (2, [1.0, 1.0])
    assert (vars(copied.config) is copied.config) == (vars(config) is config)


@pytest.mark.parametrize(
    "config", [SelfDict(width=12), {"width": 12}, SimpleNamespace(width=12)], ids=lambda c: type(c).__name__
)
def test_modules_go_on_sharing_a_settings_object(config: Any) -> None:
    model = Configured(config, KINDS["dict"][1] if isinstance(config, dict) else by_name)
    model.into.config = config
    pruned = pruned_to_three(model)
    assert pruned.into.config is pruned.config
    assert pruned.config is not config


@pytest.mark.parametrize(
    ("config", "kind"),
    [(Uncopyable(), "Uncopyable"), (SelfDict(inner=Uncopyable()), "SelfDict")],
    ids=["plain", "within"],
)
def test_what_cannot_be_copied_is_named(config: Any, kind: str) -> None:
    model = nn.Sequential(Configured(config))
    with pytest.raises(UnsupportedModelError, match=f"at 0.config, a {kind}: TypeError: bound to a file"):
        clone_with(model, {})


@pytest.mark.parametrize("held", [stat, [stat], {"backend": stat}], ids=["plain", "in a list", "in a dict"])
def test_python_modules_are_no_hindrance(held: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 3))
    model.backend, model.other = held, 5
    copied = clone_with(model, {})
    assert copied.backend == held
    assert [name for name, _ in integers_of(model)] == ["other"]
    assert prunegraph.prune(model, torch.randn(2, 3), criterion="l1", budget=prunegraph.Budget(ratio=0.5)).model


def test_what_a_numpy_integer_alone_can_do_makes_an_ordinary_number() -> None:
    model = Configured(np.int64(12), lambda width: width.item())
    graph = prunegraph.build_graph(model, torch.randn(2, 3, 5))
    assert [group.width for group in graph.groups] == []
    assert model(torch.randn(2, 3, 5)).shape == (2, 3, 5)
