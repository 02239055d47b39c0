"""Plug-ins are found, checked, and told apart."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import prunegraph_magnitude
from prunegraph.errors import CriterionError, PluginError
from prunegraph.plugin import create_manager, find_criterion, hookimpl, load_criteria, load_op_rules
from prunegraph.rules.base import Call, Rule
from prunegraph_random import Random


def plugin(name: str, *criteria: Any) -> ModuleType:
    """A plug-in module made on the fly."""
    module = ModuleType(name)

    @hookimpl
    def prunegraph_criteria() -> tuple[Any, ...]:
        return criteria

    module.prunegraph_criteria = prunegraph_criteria  # type: ignore[attr-defined]
    return module


def rule_plugin(name: str, rules: dict[Any, Rule]) -> ModuleType:
    module = ModuleType(name)

    @hookimpl
    def prunegraph_op_rules() -> dict[Any, Rule]:
        return rules

    module.prunegraph_op_rules = prunegraph_op_rules  # type: ignore[attr-defined]
    return module


class PassThrough(Rule):
    def labels(self, call: Call) -> Any:
        return call.labels("self")


class Unnameable:
    needs: frozenset[str] = frozenset()
    supports = score = staticmethod(lambda *args: ())

    @property
    def name(self) -> str:
        raise ZeroDivisionError("no name")


def test_the_criteria_of_this_distribution_are_found_by_their_entry_points() -> None:
    criteria = load_criteria(create_manager())
    assert {"l1", "l2", "random"} <= set(criteria)
    assert all(criteria[name].name == name for name in criteria)


def test_criteria_come_in_alphabetical_order_whoever_offers_them() -> None:
    names = list(load_criteria(create_manager(plugin("late", Random(name="aaa")))))
    assert names == sorted(names)
    assert names[0] == "aaa"


def test_managers_share_nothing() -> None:
    create_manager(plugin("mine", Random(name="mine")))
    assert "mine" not in load_criteria(create_manager())


def test_what_was_loaded_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        load_criteria(create_manager())["l1"] = Random()  # type: ignore[index]


def test_a_name_offered_twice_is_refused_naming_both_plug_ins() -> None:
    manager = create_manager(plugin("stranger", Random(name="l1")))
    with pytest.raises(PluginError, match=r"'prunegraph:magnitude' and 'stranger' both offer a criterion named l1"):
        load_criteria(manager)


def test_one_plug_in_that_offers_a_name_twice_is_refused() -> None:
    with pytest.raises(PluginError, match="'twice' and 'twice'"):
        load_criteria(create_manager(plugin("twice", Random(name="x"), Random(name="x"))))


def test_the_same_plug_in_given_twice_is_refused() -> None:
    with pytest.raises(PluginError, match="prunegraph_magnitude"):
        create_manager(prunegraph_magnitude)


def test_an_unknown_hook_is_refused() -> None:
    @hookimpl
    def prunegraph_criterions() -> list[Any]:
        return []

    with pytest.raises(PluginError, match="prunegraph_criterions"):
        create_manager(SimpleNamespace(prunegraph_criterions=prunegraph_criterions))


def test_a_forgotten_mark_is_told() -> None:
    with pytest.raises(PluginError, match="'SimpleNamespace' has a function prunegraph_criteria that is not marked"):
        create_manager(SimpleNamespace(prunegraph_criteria=lambda: [Random(name="mine")]))


@pytest.mark.parametrize(
    ("offer", "message"),
    [
        (object(), "lacks name, needs, supports"),
        (Random, "is a class; expected an object"),
        (Random(name=""), "is named ''"),
        (Random(name=None), "is named None"),  # type: ignore[arg-type]
        (Random(needs=frozenset({"luck"})), "needs 'luck'.*budget, data"),  # type: ignore[arg-type]
        (Random(needs="data"), "needs 'data'; give a frozenset"),  # type: ignore[arg-type]
        (Random(needs=None), "needs None; give a frozenset"),  # type: ignore[arg-type]
        (Unnameable(), "fails when asked for name and needs: ZeroDivisionError: no name"),
    ],
)
def test_what_is_no_criterion_is_refused_naming_the_plug_in(offer: Any, message: str) -> None:
    with pytest.raises(PluginError, match=f"'odd'.*{message}|{message}"):
        load_criteria(create_manager(plugin("odd", offer)))


def test_a_hook_that_fails_names_its_plug_in() -> None:
    @hookimpl
    def prunegraph_criteria() -> list[Any]:
        raise ZeroDivisionError("no luck")

    broken = ModuleType("broken")
    broken.prunegraph_criteria = prunegraph_criteria  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="'broken' failed: ZeroDivisionError: no luck"):
        load_criteria(create_manager(broken))


def test_a_criterion_is_found_by_name() -> None:
    assert find_criterion("l2") == prunegraph_magnitude.Magnitude(order=2)
    mine = Random(name="mine")
    assert find_criterion("mine", {"mine": mine}) is mine


def test_an_unknown_criterion_lists_what_there_is_and_what_was_meant() -> None:
    with pytest.raises(CriterionError, match=r"'randon'; did you mean 'random'.*l1, l2"):
        find_criterion("randon")


def test_op_rules_of_all_plug_ins_are_collected() -> None:
    one, two = PassThrough(), PassThrough()
    first, second = torch.ops.aten.special_airy_ai.default, torch.ops.aten.special_bessel_j0.default
    manager = create_manager(rule_plugin("one", {first: one}), rule_plugin("two", {second: two}))
    assert load_op_rules(manager) == {first: one, second: two}


def test_an_op_with_two_rules_is_refused_naming_both_plug_ins() -> None:
    rules = {torch.ops.aten.special_airy_ai.default: PassThrough()}
    with pytest.raises(PluginError, match=r"'one' and 'two' both offer a rule for operator aten\.special_airy_ai"):
        load_op_rules(create_manager(rule_plugin("one", rules), rule_plugin("two", rules)))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({torch.ops.aten.conv1d.default: PassThrough()}, r"'mine' offers a rule for operator aten\.conv1d.*has one"),
        ({torch.ops.aten.special_airy_ai.default: PassThrough}, "'mine' offers <class .*expected an object"),
        ([PassThrough()], "hook prunegraph_op_rules of plug-in 'mine' returned .*must return a dict"),
    ],
    ids=["known op", "class", "list"],
)
def test_op_rules_that_cannot_be_used_name_their_plug_in(rules: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        load_op_rules(create_manager(rule_plugin("mine", rules)))


@pytest.mark.parametrize("answer", [None, Random(name="mine")], ids=["nothing", "one criterion"])
def test_a_hook_that_returns_no_list_names_its_plug_in(answer: Any) -> None:
    @hookimpl
    def prunegraph_criteria() -> Any:
        return answer

    odd = ModuleType("odd")
    odd.prunegraph_criteria = prunegraph_criteria  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match=r"'odd' returned .*must return a list or a tuple"):
        load_criteria(create_manager(odd))
