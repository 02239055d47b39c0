"""The generator of random networks: everything it makes runs forward and backward, and it reaches the rule set."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings

from prunegraph.capture.tracer import capture
from tests.properties.networks import (
    BLOCKS,
    JOINS,
    Block,
    Join,
    NetworkSpec,
    build,
    choices,
    leaves,
    network_specs,
    run,
)
from tests.properties.single_blocks import specs_of

ZOO_OPS = (Path(__file__).parent / "zoo_ops.txt").read_text(encoding="utf-8").split()
"""ATen ops met in separation and enhancement networks of four libraries."""


@pytest.mark.parametrize("kind", [*BLOCKS, *JOINS])
def test_every_option_runs(kind: str) -> None:
    for spec in specs_of(kind):
        check_runs(spec)


@settings(max_examples=500)
@given(network_specs())
def test_random_networks_run(spec: NetworkSpec) -> None:
    check_runs(spec)


def check_runs(spec: NetworkSpec) -> None:
    """Twice the same finite output of the promised shape, and finite gradients."""
    before = torch.get_rng_state()
    model, inputs = build(spec)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(spec.seed)
    outputs = run(model, inputs)
    torch.manual_seed(spec.seed)
    again = run(*build(spec))
    torch.set_rng_state(before)
    assert outputs[0].shape == (spec.batch, spec.sources, spec.time)
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(outputs, again, strict=True))
    outputs[0].square().mean().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_spec_is_printed_as_the_code_that_makes_it() -> None:
    spec = NetworkSpec(Join("Residual", (Block("Norm", 6, (("kind", "batch"),)),), (("skip", "add"),)), width=8)
    assert eval(repr(spec), {"NetworkSpec": NetworkSpec, "Block": Block, "Join": Join}) == spec


def test_random_networks_are_varied() -> None:
    """Neither one block alone nor one topology takes the larger part, and every size of network occurs."""
    drawn: list[NetworkSpec] = []

    @settings(max_examples=1000, phases=[Phase.generate], derandomize=True)
    @given(network_specs())
    def draw(spec: NetworkSpec) -> None:
        drawn.append(spec)

    draw()
    sizes = [len(list(leaves(spec.body))) for spec in drawn]
    assert set(sizes) >= {1, 2, 3, 4, 5}
    assert sum(size > 1 for size in sizes) > len(sizes) / 2
    assert {leaf.kind for spec in drawn for leaf in leaves(spec.body)} == set(BLOCKS)
    assert {join.kind for spec in drawn for join in joins(spec.body)} == set(JOINS)


def joins(node: Block | Join) -> Iterator[Join]:
    if isinstance(node, Join):
        yield node
        for part in node.parts:
            yield from joins(part)


def test_every_option_of_every_block_has_choices() -> None:
    for kind in (*BLOCKS.values(), *JOINS.values()):
        assert all(len(set(values)) == len(values) > 1 for values in choices(kind).values()), kind


def test_blocks_reach_the_ops_of_real_networks() -> None:
    reached: set[str] = set()
    for kind in BLOCKS:
        for spec in specs_of(kind):
            reached |= ops(spec)
    assert sorted(set(ZOO_OPS) - reached) == []


def ops(spec: NetworkSpec) -> set[str]:
    """Names of the ATen ops of one forward pass before autograd, as in a list of ops: ``view``, ``add.Tensor``."""
    graph = capture(*build(spec)).graph
    return {str(node.target).removeprefix("aten.").removesuffix(".default") for node in graph.nodes}
