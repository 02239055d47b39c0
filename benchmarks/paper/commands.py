"""The protocol of the SepPrune paper.

    python -m benchmarks.paper run tdanet --data lrs2 --folder DataPreProcess/LRS2 --checkpoint tdanet.pth
    python -m benchmarks.paper scaled benchmarks/demo/conv_tasnet_8k.safetensors
    python -m benchmarks.paper table runs/paper/* > benchmarks/results/paper_scaled.md

Every run goes on where it was interrupted. docs/howto/reproduce-the-paper.md says what data must lie where.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from benchmarks.paper.protocol import Recipe, Run, Subject
from benchmarks.paper.published import DataName, SeparatorName
from benchmarks.paper.report import table
from benchmarks.paper.speech import corpus_speech, recorded_speech
from benchmarks.paper.subjects import published, small
from benchmarks.train_separator import load_corpus
from prunegraph.data.corpus import split_by_utterance
from prunegraph.errors import InputError, PrunegraphError

RUNS = Path("runs/paper")
app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)

Criterion = Annotated[str, typer.Option(help="Importance criterion; sepprune-epsilon is the paper's own rule.")]
MaskSteps = Annotated[int, typer.Option(min=1, help="Steps in which masks are learned.")]
Compensation = Annotated[float, typer.Option(help="Seconds of audio for closed-form compensation; 0 leaves it out.")]
Seconds = Annotated[float, typer.Option(help="Duration of a training mixture.")]
Batch = Annotated[int, typer.Option(min=1, help="Mixtures in a step.")]
Epochs = Annotated[int, typer.Option(min=1, help="Epochs of fine-tuning at most.")]
Scratch = Annotated[int, typer.Option(min=0, help="Epochs of training from scratch at most; 0 leaves it out.")]
Seed = Annotated[int, typer.Option(help="The only source of randomness.")]
Folder = Annotated[Path | None, typer.Option(help="Folder of results and checkpoints; by default in runs/paper.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run; auto is a GPU if there is one.")]
PAPER = Recipe()


@app.command()
def run(  # noqa: PLR0913 - one parameter per option
    separator: SeparatorName,
    data: Annotated[DataName, typer.Option(help="Data set.")],
    folder: Annotated[Path, typer.Option(help="Where it lies: the manifests' folder, or that of Libri2Mix.")],
    checkpoint: Annotated[Path, typer.Option(help="Weights of the dense network.")],
    criterion: Criterion = PAPER.criterion,
    mask_steps: MaskSteps = PAPER.mask_steps,
    compensation: Compensation = PAPER.compensation,
    seconds: Seconds = PAPER.seconds,
    batch: Batch = PAPER.batch,
    epochs: Epochs = 500,
    scratch: Scratch = 0,
    seed: Seed = PAPER.seed,
    runs: Folder = None,
    device: Device = "auto",
) -> None:
    """Runs a row of Table 2: prune, fine-tune, score on the test set; prints ours and the paper's."""
    recipe = Recipe(
        criterion=criterion,
        mask_steps=mask_steps,
        compensation=compensation,
        seconds=seconds,
        batch=batch,
        seed=seed,
    )
    speech = recorded_speech(data, folder, seconds)
    subject = published(separator, data, checkpoint, speech, criterion=criterion)
    _measure(subject, recipe, runs or RUNS / f"{separator}-{data}", epochs, scratch, device)


@app.command()
def scaled(  # noqa: PLR0913 - one parameter per option
    weights: Annotated[Path, typer.Argument(help="Trained separator: .safetensors, with its settings beside it.")],
    macs: Annotated[
        float | None, typer.Option(help="Share of the MACs that may stay; by default the paper's channels and share.")
    ] = None,
    epoch: Annotated[
        int | None, typer.Option(min=1, help="Mixtures in an epoch; by default each utterance once on average.")
    ] = None,
    test: Annotated[int, typer.Option(min=2, help="Test mixtures.")] = 100,
    criterion: Criterion = PAPER.criterion,
    mask_steps: MaskSteps = PAPER.mask_steps,
    compensation: Compensation = PAPER.compensation,
    seconds: Seconds = PAPER.seconds,
    batch: Batch = 4,
    epochs: Epochs = 1,
    scratch: Scratch = 40,
    seed: Seed = PAPER.seed,
    speakers: Annotated[Path | None, typer.Option(help="Folder with one sub-folder of audio per speaker.")] = None,
    runs: Folder = None,
    device: Device = "auto",
) -> None:
    """Runs the protocol on a small separator and the corpus of real speech."""
    recipe = Recipe(
        criterion=criterion,
        mask_steps=mask_steps,
        compensation=compensation,
        seconds=seconds,
        batch=batch,
        seed=seed,
    )
    speech = corpus_speech(split_by_utterance(load_corpus(speakers)), seconds, epoch=epoch, test=test)
    _measure(small(weights, speech, macs=macs), recipe, runs or RUNS / weights.stem, epochs, scratch, device)


@app.command("table")
def print_table(runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")]) -> None:
    """Prints finished runs, or what there is of them, as Markdown."""
    typer.echo("# The paper's protocol\n")
    typer.echo("\n\n".join(table(folder) for folder in runs))


def _measure(subject: Subject, recipe: Recipe, folder: Path, epochs: int, scratch: int, device: str) -> None:
    began = time.monotonic()

    def say(message: str) -> None:
        typer.echo(f"{time.monotonic() - began:7.0f} s  {message}", err=True)

    torch.set_flush_denormal(True)
    on_device = replace(subject, dense=subject.dense.to(_device(device)))
    Run(on_device, recipe, folder, say).measure(epochs, scratch)
    typer.echo(table(folder))


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no GPU that torch can use: give --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def main() -> None:
    """Runs the command; what the user can mend is one line."""
    try:
        app()
    except (PrunegraphError, OSError) as error:
        sys.exit(f"error: {error}")
