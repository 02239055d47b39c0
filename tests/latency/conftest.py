import pytest

from prunegraph import DependencyGraph, LatencyProfile, build_graph, profile
from tests.latency.clocks import Clockwork
from tests.latency.networks import separator


@pytest.fixture(scope="session")
def graph() -> DependencyGraph:
    return build_graph(*separator())


@pytest.fixture(scope="session")
def timings(graph: DependencyGraph) -> LatencyProfile:
    return profile(*separator(), graph, sample_rate=8000, measure_for=1e-9, stopwatch=Clockwork())
