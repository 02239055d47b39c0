"""What it takes for a network to be pruned rightly, checked without the library's own verification."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import prunegraph
from prunegraph import Budget, DependencyGraph, MaskedProgram, PruningPlan
from tests.zoo.networks import ZooNetwork, default_dtype, quiet

PLANS: tuple[str, ...] = ("0.3", "0.5", "random")
"""Uniform ratios by L1 magnitude, and a random share of random channels in each group."""

TOLERANCES: Mapping[torch.dtype, float] = {torch.float32: 1e-5, torch.float64: 1e-10}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network under test with what was found about it.

    Attributes:
        network: Its entry in the zoo.
        model: The dense module.
        inputs: The example.
        graph: Its dependency graph.
        program: Its exact masked program.
        dtype: Precision of all of them.
    """

    network: ZooNetwork
    model: nn.Module
    inputs: tuple[Tensor, ...]
    graph: DependencyGraph
    program: MaskedProgram
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What pruning by one plan came to.

    Attributes:
        plan: Name of the plan.
        difference: Largest difference to the exact masked program, relative to the largest entry of each output.
        macs: Share of the MACs that is left.
        parameters: Share of the parameters that is left.
    """

    plan: str
    difference: float
    macs: float
    parameters: float


def examine(network: ZooNetwork, dtype: torch.dtype = torch.float32) -> Subject:
    """Builds a network and finds its channel groups."""
    model, inputs = network.build(dtype)
    with default_dtype(dtype), quiet():
        graph = prunegraph.build_graph(model, inputs)
        program = MaskedProgram(graph)
    return Subject(network=network, model=model, inputs=inputs, graph=graph, program=program, dtype=dtype)


def make_plan(subject: Subject, name: str) -> PruningPlan:
    """Returns one of `PLANS`."""
    graph = subject.graph
    if name != "random":
        return prunegraph.select(graph, prunegraph.score(graph, criterion="l1"), Budget(ratio=float(name)))
    generator = np.random.default_rng(zlib.crc32(subject.network.name.encode()))
    counts = {group.name: int(generator.integers(1, group.width + 1)) for group in graph.groups}
    return graph.plan(
        {group.name: generator.choice(group.width, counts[group.name], replace=False) for group in graph.groups}
    )


def check_plan(subject: Subject, name: str) -> Outcome:
    """Prunes by one plan and asserts everything that makes the result right.

    Raises:
        AssertionError: The pruned network is another than the one that was chosen.
    """
    plan = make_plan(subject, name)
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    with default_dtype(subject.dtype), quiet():
        pruned = prunegraph.apply(subject.model, plan)
        check_slices(subject.model, pruned, plan)
        difference = check_outputs(subject, pruned, plan)
        check_gradients(subject, pruned)
        check_cost(subject, pruned, plan)
    after = subject.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the dense network changed"
    dense, smaller = subject.graph.cost(), subject.graph.cost(plan)
    return Outcome(
        plan=name,
        difference=difference,
        macs=smaller.macs / dense.macs,
        parameters=smaller.parameters / dense.parameters,
    )


def check_slices(model: nn.Module, pruned: nn.Module, plan: PruningPlan) -> None:
    """Asserts that each weight is bit for bit the kept part of the original, and that something is gone."""
    kept = plan.kept_indices()
    assert kept, "the plan removes nothing"
    parts = dict(pruned.named_parameters())
    for name, parameter in model.named_parameters():
        expected = parameter.detach()
        for dim, indices in kept.get(name, {}).items():
            expected = expected.index_select(dim, torch.tensor(indices))
        assert torch.equal(parts[name].detach(), expected), f"{name} is not the kept part of the original"


def check_outputs(subject: Subject, pruned: nn.Module, plan: PruningPlan) -> float:
    """Asserts equality with the exact masked program; returns the relative difference."""
    keep = torch.from_numpy(subject.graph.kept_channels(plan.kept)).to(subject.dtype)
    with torch.no_grad():
        expected = seeded(lambda: subject.program.run(keep, subject.inputs))
        dense = outputs_of(subject.model, subject.inputs)
        actual = outputs_of(pruned, subject.inputs)
    assert [value.shape for value in actual] == [value.shape for value in dense]
    difference = max(map(relative_difference, actual, expected))
    assert difference <= TOLERANCES[subject.dtype], f"differs from the exact masked program by {difference:.1e}"
    return difference


def check_gradients(subject: Subject, pruned: nn.Module) -> None:
    """Asserts that backward runs and reaches the same weights as in the dense network, with finite gradients."""
    expected, actual = (gradients(model, subject.inputs) for model in (subject.model, pruned))
    assert actual.keys() == expected.keys()
    assert all(bool(gradient.isfinite().all()) for gradient in actual.values())


def check_cost(subject: Subject, pruned: nn.Module, plan: PruningPlan) -> None:
    """Asserts that a recount on the pruned network gives what the plan says."""
    planned = subject.graph.cost(plan)
    assert planned.parameters == sum(parameter.numel() for parameter in pruned.parameters())
    assert planned.macs == prunegraph.build_graph(pruned, subject.inputs).cost().macs


def gradients(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Gradients of the sum of squared outputs, by name of the weight that has one."""
    loss = torch.stack([value.abs().square().sum() for value in outputs_of(model, inputs) if value.requires_grad]).sum()
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(weights, found, strict=True) if gradient is not None}


def outputs_of(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The output tensors of one forward pass, in order."""
    values = seeded(lambda: pytree.tree_leaves(model(*inputs)))
    return [value for value in values if isinstance(value, Tensor)]


def seeded(call: Callable[[], list[Any]]) -> list[Any]:
    """Returns what ``call`` returns when the random state is fresh: some networks draw numbers as they run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return call()


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """``max |actual - expected| / max |expected|``; NaN differs from everything."""
    difference = float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return math.inf if math.isnan(difference) else difference
