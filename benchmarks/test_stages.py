"""Time and memory of each stage on each network of the zoo, with Torch-Pruning where it finishes.

``make bench`` runs it. Rows of one network form a group, its forward pass among them, so that what a stage costs beside
the forward passes it needs can be read off. ``peak_mb`` is how far the stage raises the memory of a process in which it
is the first to run.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import prunegraph
from benchmarks.memory import with_peak
from benchmarks.pass_clock import PassClock
from benchmarks.peers.libraries import TORCH_PRUNING
from benchmarks.peers.record import read_record
from benchmarks.zoo.subjects import NETWORKS, network_named, output_layers
from prunegraph import Budget, DependencyGraph, PruningPlan
from prunegraph.capture.tracer import capture
from prunegraph.graph import analyse
from tests.zoo.networks import ZOO, ZooNetwork, quiet

pytestmark = pytest.mark.filterwarnings("ignore")

ROUNDS = 5
FINISHED_BY_PEER = {name for name, outcome in read_record().of(TORCH_PRUNING.name).items() if outcome.finished}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network with what the earlier stages made of it."""

    network: ZooNetwork
    model: nn.Module
    inputs: tuple[Tensor, ...]
    graph: DependencyGraph
    plan: PruningPlan
    pruned: nn.Module


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    model, inputs = request.param.build()
    with quiet():
        graph = prunegraph.build_graph(model, inputs)
        plan = make_plan(graph)
        pruned = prunegraph.apply(model, plan)
    return Subject(network=request.param, model=model, inputs=inputs, graph=graph, plan=plan, pruned=pruned)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_plan(graph: DependencyGraph) -> PruningPlan:
    return prunegraph.select(graph, prunegraph.score(graph, criterion="l1"), Budget(macs=0.5))


def measure(benchmark: BenchmarkFixture, group: str, stage: Callable[[], object], rounds: int = ROUNDS) -> None:
    """Times a stage."""
    benchmark.group = group
    benchmark.pedantic(stage, rounds=rounds)


@pytest.fixture(scope="module")
def peaks(subject: Subject) -> dict[str, int]:
    """Memory in MB of the stages, one after the other in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_peaks, subject.network.name).result()


def measure_peaks(name: str) -> dict[str, int]:
    """How far each stage raises the memory of this process, in MB."""
    torch.set_num_threads(1)
    model, inputs = network_named(name).build()
    found = {}
    with quiet():
        trace = capture(model, inputs)
        graph, found["analysis"] = with_peak(lambda: analyse(model, trace))
        plan, found["plan"] = with_peak(lambda: make_plan(graph))
        _, found["surgery"] = with_peak(lambda: prunegraph.apply(model, plan))
    return found


@torch.no_grad()
def test_forward(benchmark: BenchmarkFixture, subject: Subject) -> None:
    measure(benchmark, subject.network.name, lambda: subject.model(*subject.inputs))


def test_capture(benchmark: BenchmarkFixture, subject: Subject) -> None:
    benchmark.extra_info["nodes"] = len(subject.graph.trace.graph.nodes)
    measure(benchmark, subject.network.name, lambda: capture(subject.model, subject.inputs))


def test_analysis(benchmark: BenchmarkFixture, subject: Subject, peaks: dict[str, int]) -> None:
    benchmark.extra_info["peak_mb"] = peaks["analysis"]
    benchmark.extra_info["groups"] = len(subject.graph.groups)
    trace = capture(subject.model, subject.inputs)
    measure(benchmark, subject.network.name, lambda: analyse(subject.model, trace))


def test_plan(benchmark: BenchmarkFixture, subject: Subject, peaks: dict[str, int]) -> None:
    benchmark.extra_info["peak_mb"] = peaks["plan"]
    measure(benchmark, subject.network.name, lambda: make_plan(subject.graph))


def test_surgery(benchmark: BenchmarkFixture, subject: Subject, peaks: dict[str, int]) -> None:
    benchmark.extra_info["peak_mb"] = peaks["surgery"]
    measure(benchmark, subject.network.name, lambda: prunegraph.apply(subject.model, subject.plan))


def test_verification(benchmark: BenchmarkFixture, subject: Subject) -> None:
    arguments = (subject.model, subject.pruned, subject.plan, subject.inputs)
    with PassClock() as passes:
        measure(benchmark, subject.network.name, lambda: prunegraph.verify(*arguments, graph=subject.graph), rounds=1)
    if benchmark.stats:
        benchmark.extra_info["beside passes"] = round(benchmark.stats.stats.min - passes.seconds, 3)


@pytest.mark.parametrize(
    "network", [network for network in ZOO if network.name in FINISHED_BY_PEER], ids=lambda network: network.name
)
def test_torch_pruning(benchmark: BenchmarkFixture, network: ZooNetwork) -> None:
    benchmark.group = network.name
    benchmark.pedantic(
        lambda model, inputs: TORCH_PRUNING.prepare(model, inputs, output_layers(network.name))(),
        setup=lambda: (network.build(), {}),
        rounds=ROUNDS,
    )
