"""How time and memory grow with the graph, the channels, the groups and the length of the example.

Beside the forward pass, whose time capture shares, no stage may grow faster than the graph, and none with the length.
"""

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import prunegraph
from benchmarks.memory import with_peak
from prunegraph import Budget, PruningPlan
from prunegraph.capture.tracer import capture
from prunegraph.graph import DependencyGraph, analyse
from prunegraph.optional_packages import import_torchaudio

pytestmark = pytest.mark.filterwarnings("ignore")

ROUNDS = 5


def conv_tasnet(*, stacks: int = 1, hidden: int = 512, seconds: int = 1) -> tuple[nn.Module, Tensor]:
    import_torchaudio()
    from torchaudio.models import ConvTasNet

    network = ConvTasNet(num_sources=2, msk_num_stacks=stacks, msk_num_hidden_feats=hidden)
    return network.eval(), torch.randn(1, 1, 8000 * seconds)


def chain(groups: int) -> tuple[nn.Module, Tensor]:
    """Convolutions one after the other, each with channels of its own."""
    between = [module for _ in range(groups - 1) for module in (nn.Conv1d(8, 8, 3, padding=1), nn.ReLU())]
    return nn.Sequential(nn.Conv1d(1, 8, 1), *between, nn.Conv1d(8, 1, 1)).eval(), torch.randn(1, 1, 1000)


@dataclass(frozen=True, slots=True)
class Curve:
    """Networks of growing size."""

    build: Callable[[int], tuple[nn.Module, Tensor]]
    sizes: tuple[int, ...]


CURVES: Mapping[str, Curve] = MappingProxyType(
    {
        "stacks of Conv-TasNet": Curve(lambda n: conv_tasnet(stacks=n), (1, 2, 4, 8)),
        "hidden channels of Conv-TasNet": Curve(lambda n: conv_tasnet(hidden=n), (256, 512, 1024, 2048)),
        "channel groups in a chain": Curve(chain, (32, 64, 128, 256)),
        "seconds of audio, Conv-TasNet": Curve(lambda n: conv_tasnet(seconds=n), (1, 2, 4, 8)),
    }
)
POINTS = [(name, size) for name, curve in CURVES.items() for size in curve.sizes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network of a curve with what the earlier stages made of it."""

    curve: str
    model: nn.Module
    example: Tensor
    graph: DependencyGraph
    plan: PruningPlan


@pytest.fixture(scope="module", params=POINTS, ids=lambda point: f"{point[0]}: {point[1]}")
def subject(request: pytest.FixtureRequest) -> Subject:
    name, size = request.param
    torch.set_num_threads(1)
    model, example = CURVES[name].build(size)
    graph = prunegraph.build_graph(model, example)
    return Subject(curve=name, model=model, example=example, graph=graph, plan=make_plan(graph))


def make_plan(graph: DependencyGraph) -> PruningPlan:
    return prunegraph.select(graph, prunegraph.score(graph, criterion="l1"), Budget(macs=0.5))


def measure_peak(name: str, size: int) -> int:
    """MB that the stages need in all, first in their process."""
    torch.set_num_threads(1)
    model, example = CURVES[name].build(size)

    def stages() -> nn.Module:
        graph = prunegraph.build_graph(model, example)
        return prunegraph.apply(model, make_plan(graph))

    return with_peak(stages)[1]


def measure(benchmark: BenchmarkFixture, subject: Subject, stage: Callable[[], object]) -> None:
    benchmark.group = f"curve: {subject.curve}"
    benchmark.extra_info["nodes"] = len(subject.graph.trace.graph.nodes)
    benchmark.extra_info["groups"] = len(subject.graph.groups)
    benchmark.pedantic(stage, rounds=ROUNDS)


@torch.no_grad()
def test_curve_of_forward(benchmark: BenchmarkFixture, subject: Subject) -> None:
    measure(benchmark, subject, lambda: subject.model(subject.example))


def test_curve_of_capture(benchmark: BenchmarkFixture, subject: Subject, request: pytest.FixtureRequest) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        benchmark.extra_info["peak_mb"] = pool.submit(measure_peak, *request.node.callspec.params["subject"]).result()
    measure(benchmark, subject, lambda: capture(subject.model, subject.example))


def test_curve_of_analysis(benchmark: BenchmarkFixture, subject: Subject) -> None:
    measure(benchmark, subject, lambda: analyse(subject.model, subject.graph.trace))


def test_curve_of_plan(benchmark: BenchmarkFixture, subject: Subject) -> None:
    measure(benchmark, subject, lambda: make_plan(subject.graph))


def test_curve_of_surgery(benchmark: BenchmarkFixture, subject: Subject) -> None:
    measure(benchmark, subject, lambda: prunegraph.apply(subject.model, subject.plan))
