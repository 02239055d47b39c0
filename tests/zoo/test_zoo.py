"""Every network of the zoo, unedited, is pruned and is then exactly the network that was chosen."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from prunegraph import DependencyGraph, build_graph
from tests.zoo.building_blocks import BUILDING_BLOCKS
from tests.zoo.check import PLANS, Subject, check_plan, examine
from tests.zoo.held_out import HELD_OUT
from tests.zoo.locked import Explanation, explained_by, read_explanations
from tests.zoo.networks import ZOO, ZooNetwork, reference_separators

pytestmark = pytest.mark.filterwarnings("default")

ENOUGH = 0.95
NETWORKS = (*ZOO, *reference_separators(num_blocks=2), *BUILDING_BLOCKS, *HELD_OUT)
EXPLANATIONS = read_explanations(Path(__file__).with_name("locked.md"))


def each_of(networks: Sequence[ZooNetwork], *dtypes: torch.dtype) -> pytest.MarkDecorator:
    """Parametrises `subject`."""
    subjects = [
        pytest.param((network, dtype), id=f"{network.name}-{str(dtype).removeprefix('torch.')}")
        for network in networks
        for dtype in dtypes
    ]
    return pytest.mark.parametrize("subject", subjects, indirect=True)


every_network = each_of(NETWORKS, torch.float32, torch.float64)
of_audio = each_of([network for network in NETWORKS if network.longer() != network], torch.float32)


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest) -> Subject:
    network, dtype = request.param
    return examine(network.shorter(), dtype)


@every_network
def test_parameters_are_prunable_or_explained(subject: Subject) -> None:
    unexplained = [g for g in subject.graph.locked if not explained_by(EXPLANATIONS, subject.network.name, g)]

    assert subject.graph.coverage >= ENOUGH or not unexplained
    assert not subject.graph.without_rule


@every_network
def test_pruned_network_is_the_chosen_one(subject: Subject) -> None:
    outcomes = [check_plan(subject, name) for name in PLANS]

    assert all(outcome.parameters < 1 for outcome in outcomes)


@of_audio
def test_groups_do_not_depend_on_the_length_of_the_example(subject: Subject) -> None:
    model, inputs = subject.network.longer().build()

    assert members(build_graph(model, inputs)) == members(subject.graph)


def members(graph: DependencyGraph) -> dict[str, set[tuple[str, int, tuple[int, ...]]]]:
    """Of each group the tensors and dimensions, and how many indices of them each channel owns."""
    return {g.name: {(m.tensor, m.dim, m.indices.shape) for m in g.members} for g in graph.groups}


def test_networks_have_distinct_names() -> None:
    assert len({network.name for network in NETWORKS}) == len(NETWORKS)


@pytest.mark.parametrize("row", EXPLANATIONS, ids=lambda row: f"{row.network}-{row.pattern}")
def test_explanations_speak_of_networks_and_say_why(row: Explanation) -> None:
    assert row.network in {network.name for network in NETWORKS}
    assert row.reason
