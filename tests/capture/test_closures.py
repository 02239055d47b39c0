"""Functions that close over a network work in its copies on the copy, and in the network as before."""

import copy
import functools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunegraph import Budget, UnsupportedModelError, load, prune, save
from prunegraph.capture.clone import independent_copy

OUTSIDE: list[str] = []


class Closing(nn.Module):
    """What it computes in the middle is written down in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv1d(1, 8, 3), nn.Conv1d(8, 2, 3)
        self.kept: dict[str, Tensor] = {}
        self.middle: Callable[[Tensor], Tensor] = WAYS[way](self)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.middle(x).relu())
        return y * self.kept["level"] if self.kept else y


def by_lambda(network: Closing) -> Callable[[Tensor], Tensor]:
    return lambda x: network.first(x)


def by_default(network: Closing) -> Callable[[Tensor], Tensor]:
    return lambda x, layer=network.first: layer(x)


def by_keyword(network: Closing) -> Callable[[Tensor], Tensor]:
    def middle(x: Tensor, *, layer: nn.Module = network.first) -> Any:
        return layer(x)

    return middle


def by_another_function(network: Closing) -> Callable[[Tensor], Tensor]:
    inner = by_lambda(network)
    return lambda x: OUTSIDE.append("run") or inner(x)  # type: ignore[func-returns-value]


def by_list_of_functions(network: Closing) -> Callable[[Tensor], Tensor]:
    steps: list[Callable[[Tensor], Any]] = [by_lambda(network), lambda x: x + 0 * network.second.bias.sum()]

    def middle(x: Tensor) -> Any:
        for step in steps:
            x = step(x)
        return x

    return middle


def by_partial(network: Closing) -> Callable[[Tensor], Tensor]:
    return functools.partial(lambda offset, x: network.first(x) + offset, 0.0)


def by_recursion(network: Closing) -> Callable[[Tensor], Tensor]:
    def middle(x: Tensor, again: bool = True) -> Any:
        return middle(x, False) if again else network.first(x)

    return middle


def by_hook(network: Closing) -> Callable[[Tensor], Tensor]:
    kept = network.kept
    network.first.register_forward_hook(lambda m, x, y: kept.__setitem__("level", y.mean().sigmoid()))
    return network.first.forward


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        return function(*args)

    return wrapped


def by_wrapped_forward(network: Closing) -> Callable[[Tensor], Tensor]:
    before = network.first.forward
    network.first.forward = lambda x: 2 * before(x)  # type: ignore[method-assign]
    return lambda x: network.first(x)


def by_weak_reference(network: Closing) -> Callable[[Tensor], Tensor]:
    network.reference = weakref.ref(network.first)  # type: ignore[assignment]
    return lambda x: network.reference()(x)  # type: ignore[operator, misc]


def by_class(network: Closing) -> Callable[[Tensor], Tensor]:
    class Middle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([network.first])

        def forward(self, x: Tensor, layer: nn.Module = network.first) -> Any:
            return layer(x) + self.again(x)

        def again(self, x: Tensor) -> Any:
            return network.first(x) + len(self._get_name())

        def _get_name(self) -> str:
            return super()._get_name()

    network.middle_one, network.middle_two = Middle(), Middle()
    return lambda x: network.middle_one(x) + network.middle_two(x)


WAYS: dict[str, Callable[[Closing], Callable[[Tensor], Tensor]]] = {
    "lambda": by_lambda,
    "default": by_default,
    "keyword": by_keyword,
    "another function": by_another_function,
    "list of functions": by_list_of_functions,
    "partial": by_partial,
    "recursion": by_recursion,
    "decorated method": lambda network: decorated(network.first.forward),
    "method without gradient": lambda network: torch.no_grad()(network.first.forward),
    "method under vmap": lambda network: torch.vmap(network.first.forward),
    "method not compiled": lambda network: torch.compiler.disable(network.first.forward),
    "wrapped forward": by_wrapped_forward,
    "weak reference": by_weak_reference,
    "class": by_class,
    "hook": lambda network: (by_hook(network), by_lambda(network))[1],
}


@pytest.mark.parametrize("way", WAYS)
def test_copies_work_on_themselves(way: str) -> None:
    network, x = Closing(way), torch.randn(1, 1, 20)
    copied = independent_copy(network)
    with torch.no_grad():
        next(copied.parameters()).mul_(2)
    expected = Closing(way)
    expected.load_state_dict(copied.state_dict())
    torch.testing.assert_close(copied(x), expected(x))
    torch.testing.assert_close(network(x), Closing(way)(x))


@pytest.mark.parametrize("way", WAYS)
def test_pruned_networks_work_on_themselves(way: str) -> None:
    network, x = Closing(way), torch.randn(1, 1, 20)
    network(9 * x)
    pruned = prune(network, x, criterion="l1", budget=Budget(macs=0.6)).model
    fresh = Closing(way)
    for parameter, kept in zip(fresh.parameters(), pruned.parameters(), strict=True):
        parameter.data = kept.detach().clone()
    torch.testing.assert_close(pruned(x), fresh(x))


def test_what_cannot_go_with_a_copy_is_refused() -> None:
    network = Closing("lambda")
    network.middle = functools.lru_cache(network.first.forward)
    with pytest.raises(
        UnsupportedModelError, match=r"reads first\.weight of the network itself .*test_closures\.py:\d+"
    ):
        prune(network, torch.randn(1, 1, 20), criterion="l1", budget=Budget(macs=0.6))


def test_modules_of_one_class_still_are_in_a_copy() -> None:
    network = Closing("class")
    copied = independent_copy(independent_copy(network))
    first, second = copied.middle_one, copied.middle_two
    assert type(first) is type(second) is not type(network.middle_one)
    assert isinstance(first, type(network.middle_one))
    assert repr(type(first)) == repr(type(network.middle_one))


def test_what_is_not_of_the_network_stays_shared() -> None:
    network = Closing("another function")
    OUTSIDE.clear()
    independent_copy(network)(torch.randn(1, 1, 20))
    assert OUTSIDE == ["run"]


def test_functions_of_nothing_stay_the_same() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    network.scale = (lambda factor: lambda x: factor * x)(2.0)  # type: ignore[assignment]
    assert independent_copy(network).scale is network.scale
    assert copy.deepcopy(network).scale is network.scale


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def in_a_closure(width: int, places: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x.reshape(x.shape[0], places, width)


def in_the_closure_of_another(width: int, places: int) -> Callable[[Tensor], Tensor]:
    inner = in_a_closure(width, places)
    return lambda x: inner(x)


def numbers_of(function: Any) -> set[int]:
    held = [cell.cell_contents for cell in function.__closure__]
    return {n for item in held for n in ({item} if isinstance(item, int) else numbers_of(item))}


@pytest.mark.parametrize("way", [in_a_closure, in_the_closure_of_another])
def test_sizes_in_closures_follow(way: Callable[[int, int], Callable[[Tensor], Tensor]], tmp_path: Path) -> None:
    def made() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 12), nn.Flatten(), Applied(way(12, 5)), nn.Linear(12, 3)).eval()

    network = made()
    result = prune(network, torch.randn(2, 5, 4), budget=Budget(ratio=0.5))
    assert result.plan.widths == {"0.weight[0]": 12}
    assert numbers_of(network[2].function) == {12, 5}
    assert numbers_of(result.model.get_submodule("2").function) == {6, 5}
    loaded = load(made(), save(result, tmp_path / "saved"))
    x = torch.randn(3, 5, 4)
    assert torch.equal(loaded(x), result.model(x))


class Settings:
    def __init__(self) -> None:
        self.width = 12


class Preset(nn.Module):
    """Its constructor's default is what the network holds."""

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008 - as users write it
        super().__init__()
        self.settings = settings
        self.first, self.second = nn.Conv1d(1, settings.width, 3), nn.Conv1d(settings.width, 2, 1)

    def forward(self, x: Tensor) -> Any:
        return self.second(self.first(x).view(len(x), self.settings.width, -1))


def test_settings_that_are_a_default_leave_the_class_as_it_is() -> None:
    pruned = prune(Preset(), torch.randn(2, 1, 20), budget=Budget(ratio=0.5)).model
    assert type(pruned) is Preset
    assert pruned.settings.width == 6
    assert Preset().settings.width == 12
