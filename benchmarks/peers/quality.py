"""The trained separators, pruned to half their MACs by prunegraph and by Torch-Pruning, and fine-tuned alike."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import prunegraph
from benchmarks.criteria.__main__ import batches
from benchmarks.demo.run import WEIGHTS
from benchmarks.peers.judge import first_line, judge, size
from benchmarks.peers.libraries import RATIO, prepare_torch_pruning
from benchmarks.separators import SAMPLE_RATE, load_separator
from prunegraph.data.corpus import Corpus, Split
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings
from prunegraph.recovery.evaluation import evaluate
from prunegraph.recovery.losses import pit_si_sdr_loss
from prunegraph.recovery.recovering import recover
from prunegraph.recovery.settings import RecoverySettings
from prunegraph_sepprune import SepPrune
from prunegraph_sepprune.learning import LearningSettings

SHARE, CLOSENESS, TRIES = 0.5, 0.01, 12
TEST_SEED, TEST_MIXTURES = 1, 48
SEED, TUNING_STEPS, TUNING_BATCH, MASK_STEPS = 0, 100, 4, 100
OTHER_WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True, slots=True)
class Separator:
    """A trained network.

    Attributes:
        weights: Where it is stored.
        written: The layers whose widths its code reads as numbers, which Torch-Pruning must ignore besides the output.
    """

    weights: Path
    written: tuple[str, ...]


SEPARATORS: Mapping[str, Separator] = {
    "Conv-TasNet": Separator(WEIGHTS, ("encoder", "mask_generator.output_conv")),
    "SuDoRM-RF": Separator(OTHER_WEIGHTS / "sudormrf_8k.safetensors", ("encoder", "mask_net.1")),
    "A-FRCNN": Separator(OTHER_WEIGHTS / "afrcnn_8k.safetensors", ("encoder", "mask_net.1")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One pruned separator; None for what could not be measured.

    Attributes:
        network: Name of the separator.
        pruning: Library and criterion.
        problem: What went wrong, or nothing.
        macs: MACs left, as a share.
        parameters: Parameters left, as a share.
        pruned: SI-SDRi in dB right after pruning.
        tuned: SI-SDRi in dB after fine-tuning.
    """

    network: str
    pruning: str
    problem: str = ""
    macs: float | None = None
    parameters: float | None = None
    pruned: float | None = None
    tuned: float | None = None


def example() -> Tensor:
    """What the separators are recorded on."""
    return torch.randn(1, 1, SAMPLE_RATE, generator=torch.Generator().manual_seed(0))


def macs(network: nn.Module) -> int:
    """MACs of one second, counted alike for every library."""
    return prunegraph.build_graph(network, example()).cost().macs


def by_prunegraph(separator: Separator, criterion: str, train: Corpus) -> nn.Module:
    """Half of the MACs go; masks are learned on mixtures."""
    dense = load_separator(separator.weights)
    budget = prunegraph.Budget(macs=SHARE)
    if criterion != "sepprune":
        return prunegraph.prune(dense, example(), criterion=criterion, budget=budget).model
    learned = SepPrune(learning=LearningSettings(steps=MASK_STEPS))
    data = batches(train, SEED, MASK_STEPS)
    return prunegraph.prune(dense, data[0][0], criterion=learned, budget=budget, data=data, loss=pit_si_sdr_loss).model


def by_torch_pruning(separator: Separator, *, global_pruning: bool) -> nn.Module:
    """Bisects the ratio that leaves half of the MACs; the layers whose widths the code reads are ignored.

    Raises:
        RuntimeError: No ratio comes near enough.
    """
    goal = SHARE * macs(load_separator(separator.weights))
    low, high = 0.0, 1.0
    for _ in range(TRIES):
        ratio = (low + high) / 2
        pruned = torch_pruned(separator, ratio, ("decoder", *separator.written), global_pruning=global_pruning)
        left = macs(pruned) / goal
        if abs(left - 1) <= CLOSENESS:
            return pruned
        low, high = (ratio, high) if left > 1 else (low, ratio)
    raise RuntimeError(f"ratio {ratio:.3f} leaves {left * SHARE:.1%} of the MACs")


def torch_pruned(
    separator: Separator, ratio: float, ignored: Sequence[str], *, global_pruning: bool = False
) -> nn.Module:
    """The separator as Torch-Pruning leaves it."""
    dense = load_separator(separator.weights)
    return prepare_torch_pruning(dense, (example(),), ignored, ratio, global_pruning=global_pruning)()


def what_is_wrong(separator: Separator, ignored: Sequence[str]) -> str:
    """What is wrong with a separator that Torch-Pruning pruned, or nothing."""
    try:
        pruned = torch_pruned(separator, RATIO, ignored)
    except Exception as error:
        return f"raises: {first_line(error)}"
    found = judge(load_separator(separator.weights), pruned, (example(),))
    return "" if found.status == "right" else f"{found.status}: {found.detail}"


def prunings(separator: Separator, train: Corpus) -> Mapping[str, Callable[[], nn.Module]]:
    """Each way of pruning to half of the MACs."""
    return {
        "Torch-Pruning L1, each layer alike": lambda: by_torch_pruning(separator, global_pruning=False),
        "Torch-Pruning L1, global": lambda: by_torch_pruning(separator, global_pruning=True),
        "prunegraph `l1`": lambda: by_prunegraph(separator, "l1", train),
        "prunegraph `sepprune`": lambda: by_prunegraph(separator, "sepprune", train),
    }


def measure_network(name: str, split: Split) -> Iterator[Quality]:
    """What Torch-Pruning makes of a separator with and without help, and the quality where that is right."""
    helped = SEPARATORS[name].written
    for ignored in ((), helped):
        problem = what_is_wrong(SEPARATORS[name], ("decoder", *ignored))
        listed = ", ".join(f"`{layer}`" for layer in ("decoder", *ignored))
        yield Quality(network=name, pruning=f"Torch-Pruning, {listed} ignored", problem=problem or "right")
    if not problem:
        yield from measure_quality(name, split)


def measure_quality(name: str, split: Split) -> Iterator[Quality]:
    """The dense separator and each way of pruning."""
    test = MixtureSampler(split.test, MixtureSettings()).fixed(TEST_SEED, TEST_MIXTURES)
    dense = evaluate(load_separator(SEPARATORS[name].weights), test).mean
    yield Quality(network=name, pruning="dense", macs=1.0, parameters=1.0, pruned=dense)
    for pruning, prune in prunings(SEPARATORS[name], split.train).items():
        yield measured(name, pruning, prune(), split.train, test)


def measured(name: str, pruning: str, pruned: nn.Module, train: Corpus, test: Sequence[Mixture]) -> Quality:
    """Quality of a pruned separator, before and after fine-tuning."""
    dense = load_separator(SEPARATORS[name].weights)
    return Quality(
        network=name,
        pruning=pruning,
        macs=round(macs(pruned) / macs(dense), 4),
        parameters=round(size(pruned) / size(dense), 4),
        pruned=evaluate(pruned, test).mean,
        tuned=evaluate(fine_tuned(pruned, train), test).mean,
    )


def fine_tuned(pruned: nn.Module, train: Corpus) -> nn.Module:
    """A copy trained on the same mixtures whatever pruned it; the last weights count."""
    sampler = MixtureSampler(train, MixtureSettings(max_seconds=2.0))
    data = list(itertools.islice(sampler.batches(SEED + 100, size=TUNING_BATCH), TUNING_STEPS))
    return recover(pruned, data, RecoverySettings(steps=TUNING_STEPS, check_every=TUNING_STEPS)).model
