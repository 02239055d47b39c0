"""The public names and signatures on which users build."""

import inspect

import pytest
import torch
from torch import nn

import prunegraph

NAMES = {
    "Budget",
    "DependencyGraph",
    "__version__",
    "apply",
    "build_graph",
    "hookimpl",
    "load",
    "prune",
    "save",
    "score",
    "select",
    "verify",
}


def test_the_promised_names_are_there() -> None:
    assert set(prunegraph.__all__) >= NAMES


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in prunegraph.__all__ if not hasattr(prunegraph, name)] == []


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        ("build_graph", ["model", "example_inputs"]),
        ("score", ["graph", "criterion"]),
        ("select", ["graph", "scores", "budget"]),
        ("apply", ["model", "plan"]),
        ("verify", ["model", "pruned", "plan", "example_inputs"]),
        ("prune", ["model", "example_inputs"]),
        ("save", ["result", "path"]),
        ("load", ["module_or_factory", "path"]),
    ],
)
def test_arguments_keep_their_names_and_order(function: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(prunegraph, function)).parameters)[: len(parameters)] == parameters


@pytest.mark.parametrize("option", ["criterion", "budget", "data", "loss", "seed"])
def test_prune_takes_the_promised_options(option: str) -> None:
    assert option in inspect.signature(prunegraph.prune).parameters


def test_the_default_criterion_of_score_is_l1() -> None:
    assert inspect.signature(prunegraph.score).parameters["criterion"].default == "l1"


@pytest.mark.parametrize("attribute", ["groups", "locked", "to_networkx", "cost"])
def test_a_dependency_graph_shows_what_was_promised(attribute: str) -> None:
    fields = getattr(prunegraph.DependencyGraph, "__dataclass_fields__", {})
    assert attribute in fields or hasattr(prunegraph.DependencyGraph, attribute)


def test_public_functions_and_classes_are_documented_and_typed() -> None:
    public = [getattr(prunegraph, name) for name in prunegraph.__all__ if name != "__version__"]
    assert [item for item in public if not inspect.getdoc(item)] == []
    untyped = [f for f in public if inspect.isfunction(f) and "return" not in f.__annotations__]
    assert untyped == []


def test_what_people_print_fits_on_a_line() -> None:
    model, x = nn.Sequential(nn.Conv1d(1, 8, 3), nn.Conv1d(8, 1, 3)), torch.randn(1, 1, 20)
    result = prunegraph.prune(model, x, budget=prunegraph.Budget(ratio=0.5), criterion="l1")
    graph = prunegraph.build_graph(model, x)
    assert str(graph.groups[0]) == "0.weight[0], 8 channels of 0.weight[0], 0.bias[0], 1.weight[1]"
    assert str(graph.cost()) == "816 MACs, 57 parameters, 640 bytes of activations"
    assert repr(graph) == "DependencyGraph(channels: 8, groups: 1, locked: 0, coverage: 98.2%)"
    assert repr(result.plan) == "PruningPlan(4 of 8 channels stay)"
    assert repr(result).startswith("PruningResult(Sequential, PruningPlan(4 of 8 channels stay), MACs 816")
