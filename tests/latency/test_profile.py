"""A table found from five widths tells what plans of any other widths take."""

import numpy as np
import pytest
import torch
from torch import nn

from prunegraph import InputError, LatencyProfile, UnsupportedModelError, apply, build_graph, profile
from prunegraph.capture.tracer import capture
from prunegraph.latency import LatencyModel
from prunegraph.profiling.rehearsals import Rehearsal
from tests.latency.clocks import TARGET, Clockwork
from tests.latency.networks import attending, separator

NETWORKS = {"separator": separator, "attending": attending}


def random_plans(graph, count: int, least: int = 1) -> list:
    draw = np.random.default_rng(0)
    return [
        graph.plan(
            {g.name: draw.permutation(g.width)[: draw.integers(least, g.width, endpoint=True)] for g in graph.groups}
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_unseen_plans_are_predicted(make) -> None:
    model, example = make()
    graph, clock = build_graph(model, example), Clockwork()
    table = profile(model, example, graph, measure_for=1e-9, stopwatch=clock)
    predicted = LatencyModel(graph, table)
    assert len(table.widths) == 5
    for plan in [None, *random_plans(graph, 6)]:
        pruned = model if plan is None else apply(model, plan)
        assert predicted.of_plan(plan) == pytest.approx(clock.whole(capture(pruned, example)), rel=1e-3)


def test_blocks_of_channels_are_found(graph) -> None:
    model, example = separator()
    clock = Clockwork(block=8)
    table = profile(model, example, graph, measure_for=1e-9, stopwatch=clock)
    assert {op.block for op in table.ops if op.op == "aten.conv1d.default"} == {8}
    for plan in random_plans(graph, 6, least=2):  # the clockwork takes a single channel as it is
        exact = clock.whole(capture(apply(model, plan), example))
        assert LatencyModel(graph, table).of_plan(plan) == pytest.approx(exact, rel=1e-3)


def test_what_slows_whole_rounds_down_is_divided_out(graph, timings: LatencyProfile) -> None:
    clock = Clockwork(slowness=[9.0, 1.0, 2.0, 1.0, 1.0, 3.0])
    disturbed = profile(*separator(), graph, measure_for=1e-9, stopwatch=clock)
    assert [w.median for w in disturbed.widths] == pytest.approx([w.median for w in timings.widths])
    assert [w.spread for w in disturbed.widths] == pytest.approx([0] * 5, abs=1e-12)


def test_more_channels_never_take_less(graph, timings: LatencyProfile) -> None:
    model, draw = LatencyModel(graph, timings), np.random.default_rng(1)
    kept = np.zeros(sum(g.width for g in graph.groups), bool)
    times = []
    for channel in draw.permutation(len(kept)):
        kept[channel] = True
        times.append(model.seconds(kept))
    assert (np.diff(times) >= 0).all()
    assert times[-1] == pytest.approx(model.of_plan())


def test_the_table_says_where_and_how_well_it_was_made(timings: LatencyProfile) -> None:
    assert (timings.target, timings.seconds) == (TARGET, 0.05)
    assert timings.scale == pytest.approx(1.5)
    assert timings.base == pytest.approx(1e-3)
    assert timings.greatest_error < 1e-6
    assert [w.share for w in timings.widths] == [1.0, 0.75, 0.7, 0.45, 0.25]


def test_measuring_goes_on_for_as_long_as_asked(graph) -> None:
    clock = Clockwork()
    profile(*separator(), graph, measure_for=0.5, stopwatch=clock)
    few = Clockwork()
    profile(*separator(), graph, measure_for=1e-9, stopwatch=few)
    assert few.calls == 6
    assert clock.calls > 2 * few.calls


def test_the_network_is_left_untouched(graph) -> None:
    model, example = separator()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    profile(model, example, graph, measure_for=1e-9, stopwatch=Clockwork())
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("options", [{"measure_for": 0}, {"sample_rate": 0}, {"measure_for": -1.0}])
def test_options_out_of_range_are_refused(graph, options: dict) -> None:
    with pytest.raises(InputError, match="must be positive"):
        profile(*separator(), graph, stopwatch=Clockwork(), **options)


def test_the_real_stopwatch_times_every_op(graph) -> None:
    table = profile(*separator(), graph, measure_for=1e-9)
    assert len(table.ops) == sum(node.op == "call_function" for node in graph.trace.graph.nodes)
    assert all(width.median > 0 for width in table.widths)


def test_cuda_graphs_need_a_gpu(graph) -> None:
    with pytest.raises(UnsupportedModelError, match="on a GPU"):
        profile(*separator(), graph, cuda_graphs=True, stopwatch=Clockwork())


class Fixed(nn.Module):
    """Runs another op when it is narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 32, 1), nn.Conv1d(32, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return self.b(y.relu() if self.a.weight.numel() == 32 else y.tanh())


def test_networks_that_run_other_ops_when_narrow_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no narrower network runs the same ops"):
        profile(Fixed().eval(), torch.randn(1, 1, 8), measure_for=1e-9, stopwatch=Clockwork())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_profiles_are_made_on_gpus(cuda_graphs: bool) -> None:
    model, example = separator()
    table = profile(model.cuda(), example.cuda(), cuda_graphs=cuda_graphs, measure_for=1e-9)
    assert table.target.device == torch.cuda.get_device_name()
    assert table.target.cuda_graphs is cuda_graphs


class Chancy(Clockwork):
    """Every second call takes half of its time more, every other as much less."""

    def nodes(self, rehearsal: Rehearsal) -> dict[str, float]:
        return {name: taken * (0.5 + i % 2) for i, (name, taken) in enumerate(super().nodes(rehearsal).items())}


def test_calls_that_do_the_same_take_the_same() -> None:
    model, example = nn.Sequential(*(nn.Conv1d(16, 16, 3, padding=1) for _ in range(6))), torch.randn(1, 16, 40)
    graph = build_graph(model, example)
    table = profile(model, example, graph, measure_for=1e-9, stopwatch=Chancy())
    inner = [(op.fixed, op.per_mac, op.per_byte) for op in table.ops[1:-1]]
    assert inner == [inner[0]] * 4
    exact = Clockwork().whole(capture(model, example))
    assert LatencyModel(graph, table).of_plan() == pytest.approx(exact, rel=1e-2)
