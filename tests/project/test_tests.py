"""Every test asserts something."""

import ast
from pathlib import Path

import pytest

from tests.project.sources import functions, label, modules

CHECKS = ("assert", "check", "raises", "warns", "expect", "verify")


@pytest.mark.parametrize("path", [p for p in modules("tests") if p.name.startswith("test_")], ids=label)
def test_every_test_asserts(path: Path) -> None:
    tests = [function for function in functions(path) if function.name.startswith("test_")]
    assert tests
    assert [f"{test.lineno}: {test.name}" for test in tests if not _asserts(test)] == []


def _asserts(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """It holds an ``assert``, or calls something that says in its name that it checks."""
    return any(
        isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and _called(node.func).startswith(CHECKS))
        for node in ast.walk(test)
    )


def _called(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id.lstrip("_") if isinstance(node, ast.Name) else ""
