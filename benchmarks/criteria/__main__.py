"""Criteria against each other on real speech: the same separator, budget, data and fine-tuning for each.

    python -m benchmarks.criteria measure benchmarks/results/criteria.jsonl     # goes on where it was interrupted
    python -m benchmarks.criteria table benchmarks/results/criteria.jsonl > benchmarks/results/criteria.md

A cell is one criterion on one separator at one share of the MACs with one seed, which decides the mixtures that the
criterion sees, its noise, and the mixtures of the fine-tuning. Finished cells are kept.
"""

import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

import prunegraph
from benchmarks.demo.run import WEIGHTS
from benchmarks.separators import SAMPLE_RATE, load_separator
from prunegraph.data.corpus import Corpus, Split, split_by_utterance
from prunegraph.data.debian import load_debian_corpus
from prunegraph.data.mixtures import Mixture, MixtureSampler, MixtureSettings
from prunegraph.plugin import Criterion
from prunegraph.recovery.evaluation import evaluate
from prunegraph.recovery.finetuning import FineTuningSettings, fine_tune
from prunegraph.recovery.losses import pit_si_sdr_loss
from prunegraph_sepprune import SepPrune
from prunegraph_sepprune.learning import LearningSettings

CRITERIA = ("sepprune", "reconstruction", "l1", "l2", "taylor", "fpgm", "random")
DENSE = "dense"
SHARES = (0.5, 0.7, 0.3)
TRAINED = Path(__file__).parents[1] / "weights"
NETWORKS = {
    "Conv-TasNet": WEIGHTS,
    "SuDoRM-RF": TRAINED / "sudormrf_8k.safetensors",
    "A-FRCNN": TRAINED / "afrcnn_8k.safetensors",
    "TDANet": TRAINED / "tdanet_8k.safetensors",
}
TEST_SEED, TEST_MIXTURES = 1, 100
BATCH, SECONDS = 6, 1.0
MASK_STEPS, TUNING_STEPS = 200, 150
COMPENSATION_BATCHES = 6
app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measurement.

    Attributes:
        network: name of the separator, one of `NETWORKS`.
        criterion: name of the criterion.
        share: MACs that may stay, as a share of the dense network's.
        seed: of the mixtures that the criterion sees, of its noise, and of the fine-tuning.
        scoring_s: time that the criterion took, one thread.
        pruned: SI-SDRi in dB on held-out utterances right after surgery.
        compensated: the same with weights fitted in closed form to what the dense layers gave out.
        recovered: SI-SDRi in dB after surgery and fine-tuning.
        both: SI-SDRi in dB after surgery, compensation and fine-tuning.
    """

    network: str
    criterion: str
    share: float
    seed: int
    scoring_s: float
    pruned: float
    compensated: float
    recovered: float
    both: float

    @property
    def key(self) -> tuple[str, str, float, int]:
        """What identifies the cell."""
        return self.network, self.criterion, self.share, self.seed


def measure_cell(split: Split, test: Sequence[Mixture], key: tuple[str, str, float, int]) -> Cell:
    """Scores, prunes, measures, fine-tunes and measures again."""
    network, criterion, share, seed = key
    dense = load_separator(NETWORKS[network])
    graph = prunegraph.build_graph(dense, torch.zeros(BATCH, 1, int(SECONDS * SAMPLE_RATE)))
    budget = prunegraph.Budget(macs=share)
    data = batches(split.train, seed, MASK_STEPS)
    began = time.perf_counter()
    scores = prunegraph.score(graph, chosen(criterion), seed=seed, data=data, loss=pit_si_sdr_loss, budget=budget)
    scoring_s = time.perf_counter() - began
    plan = prunegraph.select(graph, scores, budget)
    pruned = prunegraph.apply(dense, plan)
    heard = [mixture for mixture, _ in data[:COMPENSATION_BATCHES]]
    compensated = prunegraph.compensate(dense, pruned, plan, heard).model
    return Cell(
        network=network,
        criterion=criterion,
        share=share,
        seed=seed,
        scoring_s=scoring_s,
        pruned=evaluate(pruned, test).mean,
        compensated=evaluate(compensated, test).mean,
        recovered=evaluate(tuned(pruned, split.train, seed), test).mean,
        both=evaluate(tuned(compensated, split.train, seed), test).mean,
    )


def measure_dense(test: Sequence[Mixture], network: str) -> Cell:
    """The network as it was trained."""
    quality = evaluate(load_separator(NETWORKS[network]), test).mean
    return Cell(
        network=network,
        criterion=DENSE,
        share=1.0,
        seed=0,
        scoring_s=0.0,
        pruned=quality,
        compensated=quality,
        recovered=quality,
        both=quality,
    )


def tuned(network: nn.Module, train: Corpus, seed: int) -> nn.Module:
    """A copy after a short fine-tuning, on the same mixtures for each criterion."""
    mixtures = MixtureSampler(train, MixtureSettings(max_seconds=2.0)).batches(100 + seed, size=4)
    return fine_tune(network, mixtures, FineTuningSettings(steps=TUNING_STEPS))


def chosen(criterion: str) -> str | Criterion:
    """Learned masks with this benchmark's number of steps; any other criterion as it is installed."""
    return SepPrune(learning=LearningSettings(steps=MASK_STEPS)) if criterion == "sepprune" else criterion


def batches(train: Corpus, seed: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Mixtures that a criterion may look at; a hundred steps of masks see as many as Taylor's average."""
    sampler = MixtureSampler(train, MixtureSettings(min_seconds=SECONDS, max_seconds=SECONDS))
    return list(itertools.islice(sampler.batches(seed, size=BATCH), count))


def read(path: Path) -> list[Cell]:
    """The finished cells."""
    return [Cell(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


@app.command()
def measure(
    path: Annotated[Path, typer.Argument(help="File of finished cells, one JSON object in a line.")],
    networks: Annotated[list[str], typer.Option("--network", help="Separators to measure.")] = list(NETWORKS),  # noqa: B006
    criteria: Annotated[list[str], typer.Option("--criterion", help="Criteria to measure.")] = list(CRITERIA),  # noqa: B006
    shares: Annotated[list[float], typer.Option("--share", help="Shares of the MACs.")] = list(SHARES),  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each cell.")] = 3,
) -> None:
    """Measures the cells that the file lacks."""
    torch.set_num_threads(1)
    split = split_by_utterance(load_debian_corpus(SAMPLE_RATE, progress=lambda text: typer.echo(text, err=True)))
    test = MixtureSampler(split.test, MixtureSettings()).fixed(TEST_SEED, TEST_MIXTURES)
    done = {cell.key for cell in read(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    dense = [(network, DENSE, 1.0, 0) for network in networks]
    pruned = itertools.product(range(seeds), networks, shares, criteria)
    for key in (*dense, *((network, criterion, share, seed) for seed, network, share, criterion in pruned)):
        if key not in done:
            cell = measure_dense(test, key[0]) if key[1] == DENSE else measure_cell(split, test, key)
            with path.open("a") as file:
                file.write(json.dumps(asdict(cell)) + "\n")
            typer.echo(f"{cell}", err=True)


@app.command()
def table(path: Annotated[Path, typer.Argument(help="File of finished cells.")]) -> None:
    """Prints the cells as a Markdown table."""
    cells = read(path)
    typer.echo("# Criteria against each other\n")
    typer.echo(
        "| network | MACs left | criterion | seeds | scoring | pruned | compensated | fine-tuned | compensated and "
        "fine-tuned |\n|---|---|---|---|---|---|---|---|---|"
    )
    rows = [(network, *cell) for network in NETWORKS for cell in [(1.0, DENSE), *itertools.product(SHARES, CRITERIA)]]
    for network, share, criterion in rows:
        row = [cell for cell in cells if cell.key[:3] == (network, criterion, share)]
        if row:
            typer.echo(f"| {network} | {share:.0%} | {criterion} | {len(row)} | {' | '.join(_figures(row))} |")
    typer.echo(
        f"\nSI-SDRi in dB on {TEST_MIXTURES} mixtures of utterances never trained on: mean and, over seeds, lowest to "
        f"highest. Masks: {MASK_STEPS} steps of {BATCH} mixtures of {SECONDS:.0f} s; Taylor sees the same mixtures, "
        f"compensation {COMPENSATION_BATCHES} batches of them. Fine-tuning: {TUNING_STEPS} steps of 4 mixtures. "
        f"torch {torch.__version__}, one CPU thread."
    )


def _figures(row: Sequence[Cell]) -> Iterator[str]:
    yield f"{statistics.mean(cell.scoring_s for cell in row):.0f} s"
    for name in ("pruned", "compensated", "recovered", "both"):
        values = [getattr(cell, name) for cell in row]
        spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
        yield f"{statistics.mean(values):.2f}{spread}"


if __name__ == "__main__":
    app()
