"""Prunes the committed Conv-TasNet to half its MACs by L1 and by learned masks; verifies, recovers and measures.

Everything is heard on utterances that were never trained on; see ``benchmarks/train_separator.py`` for the training.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import prunegraph
from benchmarks.separators import SAMPLE_RATE, load_separator
from prunegraph.data.corpus import Corpus, Split, read_speaker_folder, split_by_utterance
from prunegraph.data.debian import load_debian_corpus
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings, kinds_of_pairs
from prunegraph.recovery.evaluation import Improvement, evaluate_by_family
from prunegraph.recovery.finetuning import FineTuningSettings, fine_tune
from prunegraph.recovery.losses import best_permutation, pairwise_si_sdr, pit_si_sdr_loss
from prunegraph_sepprune import SepPrune
from prunegraph_sepprune.learning import LearningSettings

WEIGHTS = Path(__file__).with_name("conv_tasnet_8k.safetensors")
MACS = 0.5
EXAMPLE_SECONDS = 4
TEST_SEED, TUNING_SEED, MASK_SEED, COMPENSATION_SEED = 1, 2, 3, 4
CRITERIA = ("l1", "sepprune")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long the demo takes.

    Attributes:
        mixtures: test mixtures of each kind of pair.
        mask_steps: steps in which masks are learned.
        compensation_batches: batches of six mixtures that compensation fits weights on.
        steps: steps of fine-tuning of each compensated network.
    """

    mixtures: int = 60
    mask_steps: int = 150
    compensation_batches: int = 5
    steps: int = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contestant:
    """One column of the table.

    Attributes:
        parameters: number of parameter elements.
        macs_per_second: MACs per second of audio.
        quality: kind of pair -> SI-SDRi on held-out utterances.
    """

    parameters: int
    macs_per_second: float
    quality: Mapping[str, Improvement]


def real_time_factors(
    networks: Mapping[str, nn.Module], signal: Tensor, sample_rate: int, repeats: int
) -> dict[str, float]:
    """Median processing time per second of audio, warm, the networks taking turns so that none meets a quieter machine.

    Args:
        networks: name -> network in evaluation mode.
        signal: mixture, shape ``(1, 1, time)``.
        sample_rate: of the signal in Hz.
        repeats: measured runs of each network.
    """
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for turn in range(repeats + 2):  # the first two warm up
            for name, network in networks.items():
                began = time.perf_counter()
                network(signal)
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) * sample_rate / signal.shape[-1] for name, times in seconds.items()}


def write_examples(networks: Mapping[str, nn.Module], mixtures: Sequence[Mixture], folder: Path) -> int:
    """Writes mixture, sources and each network's estimates, speakers in the order of the sources; counts the files."""
    folder.mkdir(parents=True, exist_ok=True)
    signals: dict[str, Tensor] = {}
    for number, mixture in enumerate(mixtures, start=1):
        signals[f"{number}_mixture"] = mixture.mixture
        for speaker, source in enumerate(mixture.sources, start=1):
            signals[f"{number}_source{speaker}"] = source
        for name, network in networks.items():
            for speaker, estimate in enumerate(_ordered(network, mixture), start=1):
                signals[f"{number}_{name.replace(' ', '_')}_est{speaker}"] = estimate
    for name, signal in signals.items():
        loudest = max(1.0, float(signal.abs().max()))
        soundfile.write(folder / f"{name}.wav", np.asarray(signal / loudest), SAMPLE_RATE)
    return len(signals)


def table(contestants: Mapping[str, Contestant], factors: Mapping[str, float]) -> Table:
    """The one table of the demo: a row for each network."""
    shown = Table(title="Two-speaker separation, 8 kHz, utterances never trained on")
    shown.add_column("")
    kinds = list(next(iter(contestants.values())).quality)
    threads = f"RTF, {torch.get_num_threads()} thread(s)"
    for heading in ("parameters", "MACs per s", threads, *(f"SI-SDRi, {pairs}" for pairs in kinds)):
        shown.add_column(heading, justify="right")
    for name, item in contestants.items():
        size = (f"{item.parameters / 1e3:,.0f} k", f"{item.macs_per_second / 1e6:,.1f} M", f"{factors[name]:.4f}")
        shown.add_row(name, *size, *(str(item.quality[pairs]) for pairs in kinds))
    return shown


def run(split: Split, weights: Path, output: Path, effort: Effort, *, say: Callable[[str], None]) -> Table:
    """Prunes, verifies, fine-tunes, measures and writes the examples; returns the table."""
    dense = load_separator(weights)
    networks, costs = {"dense": dense}, {}
    for criterion in CRITERIA:
        say(f"{criterion}: pruning to {MACS:.0%} of the MACs")
        result = prune(dense, criterion, split.train, effort)
        say(f"{criterion}: {_verified(result)}")
        states = {"pruned": result.model, **recover(dense, result, split.train, effort)}
        networks |= {f"{criterion} {state}": network for state, network in states.items()}
        costs |= {"dense": result.report.dense, **{f"{criterion} {state}": result.report.pruned for state in states}}
    torch.set_num_threads(1)  # one short mixture at a time: a second thread would cost more than it does
    say(f"separating {effort.mixtures} mixtures of each kind with each network")
    contestants = {
        name: Contestant(
            parameters=costs[name].parameters,
            macs_per_second=costs[name].macs / EXAMPLE_SECONDS,
            quality=evaluate_by_family(network, split.test, count=effort.mixtures, seed=TEST_SEED),
        )
        for name, network in networks.items()
    }
    count = write_examples(networks, _examples(split.test), output)
    say(f"{count} wav files (mixture, sources, estimates of each network) are in {output.resolve()}")
    return table(contestants, real_time_factors(networks, _example(), SAMPLE_RATE, repeats=15))


def prune(dense: nn.Module, criterion: str, train: Corpus, effort: Effort) -> prunegraph.PruningResult:
    """Half of the MACs go, by weights alone or by masks learned on mixtures of one second."""
    budget = prunegraph.Budget(macs=MACS)
    if criterion != "sepprune":
        return prunegraph.prune(dense, _example(), criterion=criterion, budget=budget)
    mixtures = MixtureSampler(train, MixtureSettings(min_seconds=1.0, max_seconds=1.0)).batches(MASK_SEED, size=4)
    learned = SepPrune(learning=LearningSettings(steps=effort.mask_steps))
    data = list(itertools.islice(mixtures, effort.mask_steps))
    return prunegraph.prune(dense, _example(), criterion=learned, budget=budget, data=data, loss=pit_si_sdr_loss)


def recover(dense: nn.Module, result: prunegraph.PruningResult, train: Corpus, effort: Effort) -> dict[str, nn.Module]:
    """The pruned network with compensated weights, and that after a short fine-tuning."""
    heard = MixtureSampler(train, MixtureSettings(max_seconds=2.0)).batches(COMPENSATION_SEED, size=6)
    examples = [mixture for mixture, _ in itertools.islice(heard, effort.compensation_batches)]
    compensated = prunegraph.compensate(dense, result.model, result.plan, examples).model
    tuning = MixtureSampler(train, MixtureSettings(max_seconds=2.0)).batches(TUNING_SEED, size=4)
    return {
        "compensated": compensated,
        "recovered": fine_tune(compensated, tuning, FineTuningSettings(steps=effort.steps), teacher=dense),
    }


def _example() -> Tensor:
    return torch.randn(1, 1, EXAMPLE_SECONDS * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))


def _verified(result: prunegraph.PruningResult) -> str:
    verification = result.report.verification
    return f"verified by {len(verification.checks)} checks, {verification.difference:.1e} from the exact masked program"


def _ordered(network: nn.Module, mixture: Mixture) -> Tensor:
    """The estimates in the order of the sources and at the scale of the mixture, shape ``(speakers, time)``."""
    with torch.inference_mode():
        estimates = network(mixture.mixture[None, None])
        order = best_permutation(pairwise_si_sdr(estimates, mixture.sources[None]))[1][0]
        ordered = estimates[0, order]
        # SI-SDR leaves the scale free: take the one that explains the mixture best.
        scale = (ordered * mixture.mixture).sum(-1) / ordered.square().sum(-1).clamp_min(1e-8)
        return torch.as_tensor(ordered * scale[:, None])


def _examples(test: Corpus) -> list[Mixture]:
    return [
        mixture
        for pairs in kinds_of_pairs(test)
        for mixture in MixtureSampler(test, MixtureSettings(min_seconds=3.0, pairs=pairs)).fixed(TEST_SEED, 2)
    ]


def command(
    speakers: Annotated[
        Path | None,
        typer.Option(help="Folder with one sub-folder of audio files per speaker, instead of the Debian corpus."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the wav files.")] = Path("demo-output"),
    weights: Annotated[Path, typer.Option(help="Weights of the dense separator.")] = WEIGHTS,
    mixtures: Annotated[int, typer.Option(min=2, help="Test mixtures of each kind of pair.")] = 60,
    steps: Annotated[int, typer.Option(min=1, help="Steps of fine-tuning.")] = 100,
    mask_steps: Annotated[int, typer.Option(min=1, help="Steps in which masks are learned.")] = 150,
) -> None:
    """Prunes a speech separator to half its MACs in two ways, recovers it, and shows what came of it."""
    console = Console()
    began = time.monotonic()

    def say(message: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.0f} s[/dim]  {message}", highlight=False)

    try:
        corpus = (
            read_speaker_folder(speakers, SAMPLE_RATE) if speakers else load_debian_corpus(SAMPLE_RATE, progress=say)
        )
        effort = Effort(mixtures=mixtures, mask_steps=mask_steps, steps=steps)
        shown = run(split_by_utterance(corpus), weights, output, effort, say=say)
    except prunegraph.PrunegraphError as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)
    console.print(shown)
    console.print("Voices: " + "; ".join(corpus.credits) + ".", style="dim", highlight=False)


def main() -> None:
    """The command line."""
    typer.run(command)


if __name__ == "__main__":
    main()
