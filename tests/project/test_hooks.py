"""Every hook is documented, typed and tested."""

import inspect
from collections.abc import Callable

import pytest

from prunegraph.plugin import create_manager, hookspecs
from tests.project.sources import ROOT, modules

HOOKS = [hook for name, hook in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("prunegraph_")]


def test_the_manager_knows_exactly_these_hooks() -> None:
    hooks = vars(create_manager().hook)
    assert {name for name in hooks if name.startswith("prunegraph_")} == {hook.__name__ for hook in HOOKS}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_a_hook_says_what_it_is_for_and_what_it_returns(hook: Callable) -> None:
    doc = inspect.getdoc(hook) or ""
    assert "Returns:" in doc
    assert "return" in hook.__annotations__


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_a_hook_stands_in_the_reference(hook: Callable) -> None:
    assert f"`{hook.__name__}`" in (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_a_hook_is_implemented_in_some_test(hook: Callable) -> None:
    tests = modules("tests/plugin")
    assert any(f"def {hook.__name__}" in path.read_text(encoding="utf-8") for path in tests)
