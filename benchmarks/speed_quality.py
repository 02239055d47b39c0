"""What widths chosen for speed cost in quality, at equal MACs: prints ``benchmarks/results/speed_quality.md``.

python -m benchmarks.speed_quality > benchmarks/results/speed_quality.md
"""

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

import prunegraph
from benchmarks.criteria.__main__ import (
    COMPENSATION_BATCHES,
    NETWORKS,
    TEST_MIXTURES,
    TEST_SEED,
    TUNING_STEPS,
    batches,
    tuned,
)
from benchmarks.separators import SAMPLE_RATE, load_separator
from prunegraph.data.corpus import Split, split_by_utterance
from prunegraph.data.debian import load_debian_corpus
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings
from prunegraph.latency import LatencyModel
from prunegraph.profiling.stopwatch import DeviceStopwatch
from prunegraph.recovery.evaluation import evaluate
from prunegraph.selection.widths import widths_for_speed
from prunegraph.timing import target_of

CPU = torch.device("cpu")
MACS, SEED, ROUND_TO = 0.5, 0, 8
SECONDS, PROFILE_FOR, ROUNDS = 4, 8.0, 15


def plans(dense: nn.Module, example: Tensor, split: Split) -> dict[str, prunegraph.PruningPlan]:
    """By `reconstruction`: half of the MACs, the widths at which these take the least time, and as little time."""
    graph = prunegraph.build_graph(dense, example)
    heard = batches(split.train, SEED, COMPENSATION_BATCHES)
    by_shape = prunegraph.build_graph(dense, heard[0][0])
    scores = prunegraph.score(by_shape, "reconstruction", data=heard)
    watch = DeviceStopwatch(CPU, clock=time.process_time)
    timings = prunegraph.profile(dense, example, graph, measure_for=PROFILE_FOR, stopwatch=watch)
    widths = widths_for_speed(graph, timings, macs=MACS, round_to=ROUND_TO)
    fast = prunegraph.select(graph, scores, prunegraph.Budget(ratio=0, pin=widths))
    as_fast = prunegraph.Budget(latency_ms=1000 * LatencyModel(graph, timings).of_plan(fast))
    return {
        "half of the MACs": prunegraph.select(graph, scores, prunegraph.Budget(macs=MACS)),
        "widths for speed": fast,
        "as little time": prunegraph.select(graph, scores, as_fast, profile=timings),
    }


def speed_ups(networks: list[nn.Module], example: Tensor) -> list[float]:
    """The first network's processor time by that of each, in turns."""
    taken = np.empty((ROUNDS, len(networks)))
    with torch.inference_mode():
        for turn in range(-2, ROUNDS):  # the first two warm up
            for number, network in enumerate(networks):
                began = time.process_time()
                network(example)
                taken[turn, number] = time.process_time() - began
    return [float(np.median(taken[:, 0] / times)) for times in taken.T]


def rows(name: str, split: Split, test: list[Mixture]) -> Iterator[str]:
    dense = load_separator(NETWORKS[name])
    example = torch.randn(1, 1, SECONDS * SAMPLE_RATE, generator=torch.Generator().manual_seed(SEED))
    chosen = plans(dense, example, split)
    cost = prunegraph.build_graph(dense, example).cost
    pruned = {label: prunegraph.apply(dense, plan) for label, plan in chosen.items()}
    heard = [mixture for mixture, _ in batches(split.train, SEED, COMPENSATION_BATCHES)]
    gained = speed_ups([dense, *pruned.values()], example)[1:]
    for (label, network), speed_up in zip(pruned.items(), gained, strict=True):
        fewer = cost().macs / cost(chosen[label]).macs
        fitted = prunegraph.compensate(dense, network, chosen[label], heard).model
        quality = [evaluate(found, test).mean for found in (network, fitted, tuned(fitted, split.train, SEED))]
        shown = " | ".join(f"{value:.2f}" for value in quality)
        yield f"| {name} | {label} | {fewer:.2f}x | {speed_up:.2f}x | {speed_up / fewer:.2f} | {shown} |"


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    split = split_by_utterance(load_debian_corpus(SAMPLE_RATE, progress=lambda text: None))
    test = MixtureSampler(split.test, MixtureSettings()).fixed(TEST_SEED, TEST_MIXTURES)
    print("# What widths for speed cost in quality\n")
    print(
        "| network | plan | MACs | speed-up | reached | pruned | compensated | compensated and fine-tuned |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for name in NETWORKS:
        for row in rows(name, split, test):
            print(row, flush=True)
    print(
        f"\n*MACs*: the dense network's by the pruned one's. *speed-up*: the same of processor times on {SECONDS} s of "
        "audio, batch 1, eager; *reached*: speed-up by MACs. Then SI-SDRi in dB on "
        f"{TEST_MIXTURES} mixtures of utterances never trained on; {TUNING_STEPS} steps of fine-tuning. All plans keep "
        "the channels that `reconstruction` ranks first. *half of the MACs*: "
        f"`Budget(macs={MACS})`; *widths for speed*: `widths_for_speed(..., macs={MACS}, round_to={ROUND_TO})`; *as "
        "little time*: `Budget(latency_ms=...)` with what that takes by the profile.\n\n"
        f"{target_of(CPU)}. Written by `python -m benchmarks.speed_quality`."
    )


if __name__ == "__main__":
    main()
