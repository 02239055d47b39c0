"""``prunegraph evaluate``: how well, and how fast, a network or a saved result separates."""

import math
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from torch import Tensor, nn

from prunegraph.cli.commands import Checkpoint, InputShape, Json, Kwargs, Network, Seed, network_request
from prunegraph.cli.mixtures import MixtureRequest, open_mixtures
from prunegraph.cli.network import NetworkRequest, find_device, floating_dtype, open_network
from prunegraph.cli.shell import Stages, note, output, print_json, working
from prunegraph.cli.speech import SpeechRequest
from prunegraph.cli.tables import show_evaluation
from prunegraph.errors import InputError
from prunegraph.evaluation.separation import Evaluation, evaluate
from prunegraph.evaluation.speed import Speed, measure_speed
from prunegraph.io.saved_network import read
from prunegraph.io.saving import rebuild
from prunegraph.recovery.batches import mono_signal


def evaluate_command(  # noqa: PLR0913 - one parameter per option
    network: Network,
    directory: Annotated[
        Path | None,
        typer.Argument(
            help="What prune, finetune or prunegraph.save wrote; without it, the network itself is evaluated.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    kwargs: Kwargs = None,
    input_shape: InputShape = None,
    speakers: Annotated[
        Path | None,
        typer.Option(help="Folder with one sub-folder of audio per speaker.", rich_help_panel="Mixtures"),
    ] = None,
    corpus: Annotated[
        bool, typer.Option("--corpus", help="The corpus of Debian packages.", rich_help_panel="Mixtures")
    ] = False,
    librimix: Annotated[
        Path | None, typer.Option(help="Folder that holds Libri2Mix.", rich_help_panel="Mixtures")
    ] = None,
    manifests: Annotated[
        Path | None,
        typer.Option(
            help="Folder of JSON manifests, as look2hear and asteroid write them: s1.json, s2.json, mix.json.",
            rich_help_panel="Mixtures",
        ),
    ] = None,
    sample_rate: Annotated[int, typer.Option(help="Of the network, in Hz.", rich_help_panel="Mixtures")] = 8000,
    count: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="How many mixtures; by default all that are recorded, or 100 made of speakers.",
            show_default=False,
            rich_help_panel="Mixtures",
        ),
    ] = None,
    part: Annotated[
        Literal["test", "all"],
        typer.Option(
            help="Of the speakers' utterances: the tenth that finetune never hears, or all.", rich_help_panel="Mixtures"
        ),
    ] = "test",
    mode: Annotated[
        Literal["min", "max"],
        typer.Option(help="Mixtures end with the shorter, or the longer utterance.", rich_help_panel="Mixtures"),
    ] = "min",
    subset: Annotated[str, typer.Option(help="Of LibriMix.", rich_help_panel="Mixtures")] = "test",
    task: Annotated[
        Literal["sep_clean", "sep_noisy"], typer.Option(help="Of LibriMix.", rich_help_panel="Mixtures")
    ] = "sep_clean",
    mixture: Annotated[
        str | None,
        typer.Option(help="Which manifest of mixtures to take, such as mix_clean.", rich_help_panel="Mixtures"),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report and skip bad files.", rich_help_panel="Mixtures")
    ] = False,
    pesq: Annotated[bool, typer.Option("--pesq", help="Also PESQ.", rich_help_panel="Scores")] = False,
    stoi: Annotated[bool, typer.Option("--stoi", help="Also STOI.", rich_help_panel="Scores")] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write the scores of each mixture to this file.", rich_help_panel="Scores")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; by default cuda where there is one.", show_default=False)
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure how well, and how fast, a network or a saved result separates two speakers."""
    request = network_request(network, checkpoint, kwargs, input_shape, seed)
    source = SpeechRequest(
        speakers=speakers,
        corpus=corpus,
        librimix=librimix,
        manifests=manifests,
        mixture=mixture,
        sample_rate=sample_rate,
    )
    asked = MixtureRequest(
        source=source, part=part, subset=subset, task=task, mode=mode, count=count, skip_bad=skip_bad, seed=seed
    )
    metrics = ["si_sdr", "sdr", *(["pesq"] if pesq else []), *(["stoi"] if stoi else [])]
    with working():
        _check_writable(csv)
        model, signal = _opened(request, directory, find_device(device))
        input_dims: Any = signal.dim()
        mixtures, stages = open_mixtures(asked), Stages()
        with stages.stage("separating"):
            found = evaluate(
                *(model, mixtures, sample_rate),
                metrics=metrics,
                input_dims=input_dims,
                progress=lambda done, total: stages.progress(done, total, {}),
            )
        with stages.stage("timing"):
            seconds = signal.shape[-1] / sample_rate
            speed = measure_speed(model, sample_rate, seconds=seconds, input_dims=input_dims)
        if csv is not None:
            found.write_csv(csv)
    if as_json:
        print_json(_document(network, directory, found, speed))
        return
    show_evaluation(output(), found, speed)
    if checkpoint is None and directory is None:
        note("no --checkpoint was given: these are the weights that the factory made")


def _check_writable(file: Path | None) -> None:
    """Before any work, so that none is lost."""
    if file is not None and (not file.parent.is_dir() or file.is_dir()):
        raise InputError(f"{file} cannot be written; give --csv the name of a file in an existing directory")


def _opened(request: NetworkRequest, directory: Path | None, device: torch.device) -> tuple[nn.Module, Tensor]:
    """The network or the saved one, and its example input."""
    saved = None if directory is None else read(directory)
    model, example = open_network(request, None if saved is None else floating_dtype(saved.state.tensors))
    signal = mono_signal(example, "evaluate needs a network that takes")
    if saved is not None and directory is not None:
        model = rebuild(model, saved, directory)
    return model.to(device), signal


def _document(network: str, directory: Path | None, found: Evaluation, speed: Speed) -> dict[str, Any]:
    means = {name: {key: _defined(value) for key, value in asdict(mean).items()} for name, mean in found.means.items()}
    scores = [
        {"mixture": row.name, "seconds": row.seconds, **{name: _defined(value) for name, value in row.values.items()}}
        for row in found.scores
    ]
    return {
        "network": network,
        "prunegraph": version("prunegraph"),
        "torch": torch.__version__,
        "directory": None if directory is None else str(directory),
        "means": means,
        "speed": {**asdict(speed), "real_time_factor": speed.real_time_factor},
        "scores": scores,
    }


def _defined(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
