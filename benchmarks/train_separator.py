"""Trains a separator for two speakers at 8 kHz on the real-speech corpus.

    python -m benchmarks.train_separator train runs/utterance     # goes on where an interrupted run stopped
    python -m benchmarks.train_separator evaluate runs/utterance
    python -m benchmarks.train_separator export runs/utterance benchmarks/demo/conv_tasnet_8k.safetensors
    python -m benchmarks.train_separator train runs/sudormrf --separator sudormrf --steps 5000
    python -m benchmarks.train_separator export runs/sudormrf benchmarks/weights/sudormrf_8k.safetensors

The number of steps fixes the learning-rate schedule, and batch i depends only on the seed and i, so that an interrupted
run ends like one that ran through.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args

import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.separators import SAMPLE_RATE, SEPARATORS
from prunegraph.data.corpus import Corpus, Split, read_speaker_folder, split_by_speaker, split_by_utterance
from prunegraph.data.debian import TEST_PEOPLE, load_debian_corpus
from prunegraph.data.mixtures import MixtureSampler, MixtureSettings
from prunegraph.errors import DataError, PrunegraphError
from prunegraph.recovery.evaluation import evaluate, evaluate_by_family
from prunegraph.recovery.losses import pit_si_sdr_loss

Forward: TypeAlias = Callable[[Tensor], Tensor]
SplitName: TypeAlias = Literal["utterance", "speaker"]
DECAY = 1 / 3  # share of the steps over which the learning rate falls
LOG_EVERY, VALIDATE_EVERY, VALIDATION_MIXTURES = 100, 1000, 64
app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """All that decides the result of a run, stored beside its weights.

    Attributes:
        split: ``utterance`` (every voice heard in training) or ``speaker`` (tested on people never heard).
        steps: optimizer steps; over the last third of them the learning rate falls linearly to zero.
        batch: mixtures per step.
        seconds: duration of a mixture.
        learning_rate: highest learning rate of Adam.
        clip_norm: largest norm of the gradient.
        warmup: steps over which the learning rate rises.
        seed: of weights and mixtures.
        separator: name of the network, one of `SEPARATORS`.
        network: arguments of its builder.
    """

    split: SplitName = "utterance"
    steps: int = 15_000
    batch: int = 4
    seconds: float = 2.0
    learning_rate: float = 1e-3
    clip_norm: float = 5.0
    warmup: int = 200
    seed: int = 0
    separator: str = "conv-tasnet"
    network: dict[str, int] = field(default_factory=lambda: dict(SEPARATORS["conv-tasnet"].sizes))


@dataclass(slots=True, kw_only=True, eq=False)
class Training:
    """The running state: what a checkpoint stores."""

    network: nn.Module
    optimizer: torch.optim.Adam
    schedule: torch.optim.lr_scheduler.LRScheduler
    step: int = 0

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a stored state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]


def start(settings: TrainingSettings, device: torch.device) -> Training:
    """Makes the network with its optimizer and learning-rate schedule."""
    torch.manual_seed(settings.seed)
    network = SEPARATORS[settings.separator].build(**settings.network).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate_factor, settings))
    return Training(network=network, optimizer=optimizer, schedule=schedule)


def rate_factor(settings: TrainingSettings, step: int) -> float:
    """The learning rate of a step relative to the highest.

    Constant between warm-up and decay, so that a run may be given another number of steps until the decay begins.
    """
    return min(1.0, (step + 1) / settings.warmup, (settings.steps - step) / (DECAY * settings.steps))


def make_split(corpus: Corpus, name: SplitName) -> Split:
    """The named split; of a corpus of one's own, the last third of the people is tested on."""
    if name == "utterance":
        return split_by_utterance(corpus)
    known = set(TEST_PEOPLE) <= set(corpus.people)
    return split_by_speaker(corpus, TEST_PEOPLE if known else corpus.people[-max(2, len(corpus.people) // 3) :])


def train_step(training: Training, forward: Forward, mixture: Tensor, sources: Tensor, clip_norm: float) -> Tensor:
    """One step of Adam on the PIT SI-SDR loss; returns the loss in dB."""
    training.optimizer.zero_grad()
    loss = pit_si_sdr_loss(forward(mixture), sources)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(training.network.parameters(), clip_norm)
    training.optimizer.step()
    training.schedule.step()
    training.step += 1
    return loss.detach()


def write_checkpoint(training: Training, folder: Path) -> None:
    """Stores the state; an interruption leaves the previous checkpoint whole."""
    unfinished = folder / "checkpoint.partial"
    torch.save(training.state(), unfinished)
    unfinished.replace(folder / "checkpoint.pt")


def restore(training: Training, run: Path) -> None:
    """Goes on from the checkpoint, if there is one."""
    if (run / "checkpoint.pt").exists():
        device = next(training.network.parameters()).device
        training.restore(torch.load(run / "checkpoint.pt", map_location=device, weights_only=True))


@app.command()
def train(
    run: Annotated[Path, typer.Argument(help="Folder for checkpoint, log and settings; an existing run is resumed.")],
    split: Annotated[str, typer.Option(help="utterance or speaker")] = "utterance",
    separator: Annotated[str, typer.Option(help=f"One of {', '.join(SEPARATORS)}.")] = "conv-tasnet",
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps in all.")] = 15_000,
    speakers: Annotated[Path | None, typer.Option(help="Folder with one sub-folder of audio per speaker.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads")] = 1,
    compiled: Annotated[bool, typer.Option(help="Use torch.compile where it is faster (needs a C++ compiler).")] = True,
) -> None:
    """Trains a separator, or goes on with a run."""
    if split not in get_args(SplitName):
        raise typer.BadParameter(f"--split is one of {get_args(SplitName)}, not {split!r}")
    if separator not in SEPARATORS:
        raise typer.BadParameter(f"--separator is one of {', '.join(SEPARATORS)}, not {separator!r}")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    sizes = dict(SEPARATORS[separator].sizes)
    settings = TrainingSettings(split=cast(SplitName, split), steps=steps, separator=separator, network=sizes)
    keep_settings(settings, run)
    training = start(settings, torch.device(device))
    restore(training, run)
    fit(training, settings, make_split(load_corpus(speakers), settings.split), run, compiled=compiled)


def fit(training: Training, settings: TrainingSettings, split: Split, run: Path, *, compiled: bool) -> None:
    """Trains to the last step; writes a checkpoint and a line of the log every ``LOG_EVERY`` steps."""
    forward: Forward = SEPARATORS[settings.separator].for_training(training.network) if compiled else training.network
    mixtures = MixtureSettings(min_seconds=settings.seconds, max_seconds=settings.seconds)
    validation = MixtureSampler(split.val, mixtures).fixed(seed=settings.seed + 1, count=VALIDATION_MIXTURES)
    batches = MixtureSampler(split.train, mixtures).batches(settings.seed, settings.batch, start=training.step)
    device = next(training.network.parameters()).device
    losses: list[Tensor] = []
    began = time.monotonic()
    while training.step < settings.steps:
        mixture, sources = (tensor.to(device) for tensor in next(batches))
        losses.append(train_step(training, forward, mixture, sources, settings.clip_norm))
        if training.step % LOG_EVERY == 0 or training.step == settings.steps:
            entry: dict[str, float] = {
                "step": training.step,
                "loss_db": round(torch.stack(losses).mean().item(), 3),
                "learning_rate": float(training.schedule.get_last_lr()[0]),
                "seconds_per_step": round((time.monotonic() - began) / len(losses), 4),
            }
            if training.step % VALIDATE_EVERY == 0 or training.step == settings.steps:
                entry["val_si_sdri_db"] = round(evaluate(training.network, validation).mean, 3)
            write_checkpoint(training, run)
            log(entry, run)
            losses.clear()
            began = time.monotonic()


@app.command("evaluate")
def evaluate_runs(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    count: Annotated[int, typer.Option(min=2, help="Mixtures of each kind.")] = 300,
    speakers: Annotated[Path | None, typer.Option(help="Folder with one sub-folder of audio per speaker.")] = None,
) -> None:
    """Prints, as a Markdown table, the SI-SDRi on the test part of each run's split, same-family pairs apart."""
    corpus = load_corpus(speakers)
    typer.echo(
        "| split | trained for | pairs | mixtures | SI-SDRi (95 % interval of the mean) |\n|---|---|---|---|---|"
    )
    for run in runs:
        settings = TrainingSettings(**json.loads((run / "settings.json").read_text()))
        training = start(settings, torch.device("cpu"))
        restore(training, run)
        test = make_split(corpus, settings.split).test
        for pairs, improvement in evaluate_by_family(training.network, test, count=count, seed=2).items():
            typer.echo(f"| {settings.split} | {training.step:,} steps | {pairs} | {count} | {improvement} |")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    weights: Annotated[Path, typer.Argument(help="The .safetensors file to write; log and settings go beside it.")],
) -> None:
    """Writes the weights of a run as safetensors, with settings (.json) and log (.jsonl)."""
    if not (run / "checkpoint.pt").exists():
        raise typer.BadParameter(f"{run} has no checkpoint yet.")
    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    unfinished = weights.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in state["network"].items()}, unfinished)
    unfinished.replace(weights)
    shutil.copyfile(run / "settings.json", weights.with_suffix(".json"))
    shutil.copyfile(run / "log.jsonl", weights.with_suffix(".jsonl"))
    typer.echo(f"{weights}: step {state['step']}, {weights.stat().st_size / 1e6:.2f} MB")


def load_corpus(speakers: Path | None) -> Corpus:
    """The Debian corpus, or a folder of speakers."""
    return read_speaker_folder(speakers, SAMPLE_RATE) if speakers else load_debian_corpus(SAMPLE_RATE, progress=_say)


def keep_settings(settings: TrainingSettings, run: Path) -> None:
    """Writes the settings of a run; refuses to go on with others than it was begun with."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / "settings.json"
    if path.exists() and not _same_so_far(settings, TrainingSettings(**json.loads(path.read_text())), run):
        raise DataError(f"{run} was begun with other settings ({path}): repeat those, or choose another folder.")
    path.write_text(json.dumps(asdict(settings), indent=2))


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _same_so_far(settings: TrainingSettings, earlier: TrainingSettings, run: Path) -> bool:
    """Whether the steps made so far are those that the new settings would have made."""
    log = run / "log.jsonl"
    step = json.loads(log.read_text().splitlines()[-1])["step"] if log.exists() else 0
    before_decay = step <= (1 - DECAY) * min(settings.steps, earlier.steps)
    return settings == earlier or (before_decay and settings == replace(earlier, steps=settings.steps))


def log(entry: dict[str, float], run: Path) -> None:
    """Appends a line to the log."""
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def main() -> None:
    """Runs the command; what the user can mend is one line."""
    try:
        app()
    except PrunegraphError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
