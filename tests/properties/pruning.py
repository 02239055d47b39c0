"""Prunes a network by a random plan and compares it with everything that is known about it beforehand."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import prunegraph
from tests.properties.networks import NetworkSpec, build, outputs_of, run

TOLERANCE = 1e-10


def check_pruning(spec: NetworkSpec) -> prunegraph.DependencyGraph:
    """Surgery, exact masked program and cost agree for a plan drawn from the seed; returns the graph."""
    model, inputs = build(spec)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    graph = prunegraph.build_graph(model, inputs)
    assert not [lock for group in graph.locked for lock in group.locks if lock.reason.startswith("the rule ")]
    kept = draw_kept(graph, spec.seed)
    plan = graph.plan(kept)
    pruned = prunegraph.apply(model, plan)
    assert [module.training for module in model.modules()] == flags
    check_same_state(model.state_dict(), before)
    check_slices(pruned.state_dict(), before, plan)
    model.eval()
    pruned.eval()
    check_outputs(graph, model, pruned, inputs, kept)
    check_cost(graph, plan, pruned, inputs)
    check_backward(pruned, inputs)
    return graph


def draw_kept(graph: prunegraph.DependencyGraph, seed: int) -> dict[str, Sequence[int]]:
    """Of each group a random non-empty subset of its channels."""
    generator = np.random.default_rng(seed)
    kept: dict[str, Sequence[int]] = {}
    for group in graph.groups:
        count = int(generator.integers(1, group.width + 1))
        kept[group.name] = sorted(generator.choice(group.width, count, replace=False).tolist())
    while branch := graph.turned_branch(kept):
        kept.update((group.name, range(group.width)) for group in graph.groups if group.name in graph.groups_of(branch))
    return kept


def check_same_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """The user's model is what it was."""
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def check_slices(state: Mapping[str, Tensor], dense: Mapping[str, Tensor], plan: prunegraph.PruningPlan) -> None:
    """Each tensor holds the kept indices of the original's, bit by bit."""
    shrunk = plan.kept_indices()
    assert state.keys() == dense.keys()
    for name, tensor in dense.items():
        for dim, indices in shrunk.get(name, {}).items():
            tensor = tensor.index_select(dim, torch.tensor(indices))
        assert torch.equal(state[name], tensor), name


def check_outputs(
    graph: prunegraph.DependencyGraph,
    model: nn.Module,
    pruned: nn.Module,
    inputs: Any,
    kept: Mapping[str, Sequence[int]],
) -> None:
    """The pruned network computes what the exact masked program computes; with all channels that is the original."""
    program = prunegraph.MaskedProgram(graph)
    masks = {group.name: torch.zeros(group.width, dtype=torch.float64) for group in graph.groups}
    for name, channels in kept.items():
        masks[name][list(channels)] = 1
    with torch.no_grad():
        dense, found = run(model, inputs), run(pruned, inputs)
        everything = outputs_of(program({}, *_arguments(inputs)[0], **_arguments(inputs)[1]))
        expected = outputs_of(program(masks, *_arguments(inputs)[0], **_arguments(inputs)[1]))
    assert [output.shape for output in found] == [output.shape for output in dense]
    assert difference(everything, dense) < TOLERANCE
    assert difference(found, expected) < TOLERANCE


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest ``|found - expected| / |expected|`` in Euclidean norms; nan where there is a nan."""
    pairs = zip(found, expected, strict=True)
    return float(torch.stack([(f - e).norm() / e.norm().clamp(min=1e-3) for f, e in pairs]).max())


def check_cost(graph: prunegraph.DependencyGraph, plan: prunegraph.PruningPlan, pruned: nn.Module, inputs: Any) -> None:
    """What the plan was said to cost is what the pruned network costs when it is recorded anew."""
    planned, recounted = graph.cost(plan), prunegraph.build_graph(pruned, inputs).cost()
    assert planned.parameters == recounted.parameters == sum(p.numel() for p in pruned.parameters())
    assert planned.macs == recounted.macs
    assert planned.activation_bytes == recounted.activation_bytes
    by_module = {item.module: (item.macs, item.parameters) for item in recounted.modules}
    assert {item.module: (item.macs, item.parameters) for item in planned.modules} == by_module


def check_backward(pruned: nn.Module, inputs: Any) -> None:
    run(pruned, inputs)[0].square().mean().backward()
    gradients = list(_gradients(pruned))
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def _gradients(module: nn.Module) -> Iterator[Tensor]:
    return (parameter.grad for parameter in module.parameters() if parameter.grad is not None)


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}
