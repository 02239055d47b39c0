"""Where ``int``, ``float`` and ``len`` can stand for something that keeps the origin of sizes."""

import importlib
import sys
import types
import warnings

import pytest
import torch

import prunegraph
from prunegraph.capture.conversions import own_modules, replaceable
from prunegraph.models import SuDoRMRF

CALLS = "class Net:\n    def forward(self, x: int) -> float:\n        return {}\n"


def words(source: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> set[str]:
    """The names that can be replaced in a module of this source."""
    path = tmp_path / f"{name}.py"
    path.write_text(source)
    module = types.ModuleType(name)
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, name, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(source, path, "exec"), vars(module))
    return {word for _, word in replaceable([module.Net])} - {"len"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("int(x / 2)", {"int", "float"}),
        ("x if isinstance(x, (int, float)) else 0", {"int", "float"}),
        ("zeros(x, dtype=int)", {"float"}),
        ("type(x) is float", {"int"}),
        ("(lambda y: map(int, y))(x)", {"float"}),
        ("[int := 3]", {"float"}),
        (r"int('\_' == x)", {"int", "float"}),  # Python warns of such text
    ],
)
def test_names_that_are_only_called_are_replaced(expression, expected, monkeypatch, tmp_path) -> None:
    assert words(CALLS.format(expression), "someones_network", monkeypatch, tmp_path) == expected


def test_what_runs_before_and_annotations_do_not_count(monkeypatch, tmp_path) -> None:
    source = (
        "from typing import Optional\nNumber = Optional[int]\n"
        "class Net:\n    kinds = {int: 'whole'}\n    def __init__(self):\n        self.kind = int\n"
        "    def forward(self, x: int | None = None):\n        y: float = int(x)\n        return y\n"
    )
    assert words(source, "someones_network", monkeypatch, tmp_path) == {"int", "float"}


def test_what_a_helper_is_made_of_counts(monkeypatch, tmp_path) -> None:
    source = (
        "class Cache:\n    def __init__(self):\n        self.places = zeros(3, dtype=int)\n"
        "class Net:\n    def __init__(self):\n        self.kind = float\n"
        "    def forward(self, x):\n        return Cache().places + int(x)\n"
    )
    assert words(source, "someones_network", monkeypatch, tmp_path) == {"float"}


def test_a_module_with_an_int_of_its_own_keeps_it(monkeypatch, tmp_path) -> None:
    source = "def int(x):\n    return x\n" + CALLS.format("int(x)")
    assert words(source, "someones_network", monkeypatch, tmp_path) == {"float"}


def test_what_has_no_source_is_left_alone(monkeypatch) -> None:
    module = types.ModuleType("typed_in")
    exec(CALLS.format("int(x)"), vars(module))
    monkeypatch.setitem(sys.modules, "typed_in", module)
    assert list(replaceable([module.Net])) == []


HELPER = "def halves(x, weight):\n    size = int(weight.shape[0])\n    return x[:, :size] + x[:, size:]\n"
LENGTH = "def halves(x, weight):\n    return x[:, :len(weight)] + x[:, len(weight):]\n"
NETWORK = """
import torch
from torch import nn
{use}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.weight, self.last = nn.Conv1d(1, 8, 3), nn.Parameter(torch.randn(6, 8, 1)), nn.Conv1d(6, 1, 1)

    def forward(self, x):
        y = torch.conv1d(self.first(x), torch.cat([self.weight, -2 * self.weight]))
        return self.last({call}(y, self.weight))
"""


@pytest.mark.parametrize("helper", [HELPER, LENGTH], ids=["int", "len"])
@pytest.mark.parametrize(
    ("use", "call"),
    [("from {}_helper import halves", "halves"), ("import {}_helper", "{}_helper.halves")],
    ids=["function", "module"],
)
def test_helpers_in_files_beside_the_network_count(use, call, helper, monkeypatch, tmp_path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"network_{abs(hash((use, helper)))}"
    (tmp_path / f"{name}_helper.py").write_text(helper)
    (tmp_path / f"{name}.py").write_text(NETWORK.format(use=use.format(name), call=call.format(name)))
    network = importlib.import_module(name).Net()
    graph = prunegraph.build_graph(network, torch.randn(1, 1, 20))
    assert {group.name: group.width for group in graph.groups} == {"first.weight[0]": 8, "weight[0]": 6}


def test_of_prunegraph_only_the_files_of_networks_count() -> None:
    names = {module.__name__ for module in own_modules([SuDoRMRF])}
    assert names == {SuDoRMRF.__module__}
