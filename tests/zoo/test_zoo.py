"""Every network of the zoo, unedited, is pruned and is then exactly the network that was chosen."""

from pathlib import Path

import pytest
import torch

from tests.zoo.building_blocks import BUILDING_BLOCKS
from tests.zoo.check import PLANS, Subject, check_plan, examine
from tests.zoo.held_out import HELD_OUT
from tests.zoo.locked import Explanation, explained_by, read_explanations
from tests.zoo.networks import ZOO, reference_separators

pytestmark = pytest.mark.filterwarnings("default")

ENOUGH = 0.95
NETWORKS = (*ZOO, *reference_separators(num_blocks=2), *BUILDING_BLOCKS, *HELD_OUT)
EXPLANATIONS = read_explanations(Path(__file__).with_name("locked.md"))

every_network = pytest.mark.parametrize(
    "subject",
    [
        pytest.param((network, dtype), id=f"{network.name}-{str(dtype).removeprefix('torch.')}")
        for network in NETWORKS
        for dtype in (torch.float32, torch.float64)
    ],
    indirect=True,
)


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


def test_networks_have_distinct_names() -> None:
    assert len({network.name for network in NETWORKS}) == len(NETWORKS)


@pytest.mark.parametrize("row", EXPLANATIONS, ids=lambda row: f"{row.network}-{row.pattern}")
def test_explanations_speak_of_networks_and_say_why(row: Explanation) -> None:
    assert row.network in {network.name for network in NETWORKS}
    assert row.reason
