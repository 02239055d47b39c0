"""The library's sources keep to the project's rules."""

import ast
import re
from pathlib import Path

import pytest

from tests.project.sources import functions, label, modules, tree

LIBRARY = modules("prunegraph", "plugins")
NETWORKS = re.compile(
    r"tda[-_ ]?net|a[-_]?frcnn|su[-_]?do[-_ ]?rm|conv[-_ ]?tas[-_ ]?net|lstm[-_]?tas|dprnn|dpt[-_]?net|sepformer|skim\b"
    r"|demucs|dccrn|dcunet|demask|x-?umx|fas[-_]?net|wave[-_]?u[-_]?net|tf[-_]?grid|band[-_]?split[-_]?rnn|wav2vec",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_a_module_fits_in_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    """Counted without the docstring."""
    long = {f.name: lines for f in functions(path) if (lines := _body_lines(f)) > 50}
    assert not long


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_no_module_is_a_drawer(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_no_network_is_named_outside_models(path: Path) -> None:
    """The engine knows operators; a network's name in it would be a special case."""
    if "models" in path.parts:
        assert path.exists()
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"{number}: {line}" for number, line in enumerate(lines, 1) if NETWORKS.search(line)] == []


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_the_library_is_silent_and_imports_by_name(path: Path) -> None:
    prints = [n.lineno for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and _name(n.func) == "print"]
    stars = [n.lineno for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"]
    assert (prints, stars) == ([], [])


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_no_global_changes(path: Path) -> None:
    """No ``global`` statement, and what a module binds by an empty display would only be there to be filled."""
    statements = [node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Global)]
    empty = [node.lineno for node in tree(path).body if isinstance(node, ast.Assign | ast.AnnAssign) and _empty(node)]
    assert (statements, empty) == ([], [])


def _empty(node: ast.Assign | ast.AnnAssign) -> bool:
    value = node.value
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List | ast.Set):
        return not value.elts
    return isinstance(value, ast.Call) and _name(value.func) in {"dict", "list", "set"} and not value.args


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_errors_are_typed(path: Path) -> None:
    """Nothing raises bare ``Exception`` or swallows every error."""
    raised = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and _name(node.exc.func) == "Exception"
    ]
    bare = [node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler) and node.type is None]
    assert (raised, bare) == ([], [])


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""
