"""A step of mask learning against a dense training step on the same batch: at most 1.3 times as long on a CPU.

The two take turns, so that neither meets a quieter machine; ``ratio`` is that of their medians.
"""

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import prunegraph
from benchmarks.demo.run import WEIGHTS
from benchmarks.separators import SAMPLE_RATE, load_separator
from prunegraph.plugin import CriterionContext
from prunegraph.recovery.losses import pit_si_sdr_loss
from prunegraph_magnitude.relative import log_magnitudes
from prunegraph_sepprune import SepPrune
from prunegraph_sepprune.learning import LearningSettings

ROUNDS = 15


def training_step(model: nn.Module, mixture: Tensor, sources: Tensor) -> Callable[[], None]:
    """Forward, backward and Adam on all weights."""
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(pit_si_sdr_loss(model(mixture), sources))
        optimizer.step()

    return step


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("seconds", [1, 4])
def test_mask_step(benchmark: BenchmarkFixture, device: str, seconds: int) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA")
    model = load_separator(WEIGHTS).to(device)
    sources = torch.randn(4, 2, seconds * SAMPLE_RATE, device=device)
    mixture = sources.sum(dim=1, keepdim=True)
    graph = prunegraph.build_graph(model, mixture)
    context = CriterionContext(
        loss=pit_si_sdr_loss, masked_program=prunegraph.MaskedProgram(graph), budget=prunegraph.Budget(macs=0.5)
    )
    learner = SepPrune(learning=LearningSettings()).learner(graph, context, log_magnitudes(graph, graph.weights))
    train = training_step(model, mixture, sources)
    seconds_of_training: list[float] = []

    def turn() -> None:
        began = time.perf_counter()
        train()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds_of_training.append(time.perf_counter() - began)

    def mask_step() -> None:
        learner.step(mixture, sources)
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark.group = f"mask step, batch 4, {seconds} s, {device}"
    benchmark.pedantic(mask_step, setup=turn, rounds=ROUNDS, warmup_rounds=2)
    if benchmark.stats:
        ratio = benchmark.stats.stats.median / statistics.median(seconds_of_training[2:])
        benchmark.extra_info["ratio to a training step"] = round(ratio, 3)
