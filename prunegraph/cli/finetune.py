"""``prunegraph finetune``: recovers the quality of a saved result on two-speaker speech."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from torch import Tensor, nn

from prunegraph.cli.commands import Checkpoint, InputShape, Json, Kwargs, Network, Seed, network_request
from prunegraph.cli.network import floating_dtype, open_network
from prunegraph.cli.rounds import RoundsRequest, gradual_pruning, recovered
from prunegraph.cli.shell import note, output, print_json, working
from prunegraph.cli.speech import (
    LibriMix,
    Manifests,
    MixtureName,
    SampleRate,
    Speakers,
    SpeechRequest,
    UseCorpus,
    check_speech,
    open_speech,
)
from prunegraph.data.speech import Speech
from prunegraph.errors import InputError
from prunegraph.io.saved_network import SavedNetwork, read, write
from prunegraph.io.saving import load
from prunegraph.recovery.batches import Batch, mono_signal
from prunegraph.recovery.compensation import compensate
from prunegraph.recovery.distillation import Loss
from prunegraph.recovery.losses import pit_si_sdr_loss, pit_snr_loss
from prunegraph.recovery.recovering import LAST, Recovery, recover
from prunegraph.recovery.settings import Check, RecoverySettings
from prunegraph.recovery.tensorboard import tensorboard_log

if TYPE_CHECKING:
    from lightning_fabric import Fabric

VALIDATION_BATCHES = 8
GRADUALLY = "Gradual pruning"


class LossName(StrEnum):
    """Losses by name."""

    SI_SDR = "si-sdr"
    SNR = "snr"


def finetune(  # noqa: PLR0913 - one parameter per option
    network: Network,
    directory: Annotated[Path, typer.Argument(help="What prune or prunegraph.save wrote.", show_default=False)],
    destination: Annotated[Path, typer.Option("--output", help="Directory to save the recovered result in.")],
    checkpoint: Checkpoint = None,
    kwargs: Kwargs = None,
    input_shape: InputShape = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoints; by default OUTPUT.run. An interrupted run goes on.")
    ] = None,
    speakers: Speakers = None,
    corpus: UseCorpus = False,
    librimix: LibriMix = None,
    manifests: Manifests = None,
    mixture: MixtureName = None,
    sample_rate: SampleRate = 8000,
    seconds: Annotated[float, typer.Option(help="Duration of a mixture.")] = 2.0,
    batch: Annotated[int, typer.Option(min=1, help="Mixtures per step, over all devices.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps in all.")] = 2000,
    check_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 100,
    learning_rate: Annotated[float, typer.Option(help="Of Adam; it falls on a plateau.")] = 1e-3,
    falling: Annotated[
        float, typer.Option(help="Share of the steps, at the end, in which the learning rate falls to 0.")
    ] = 0.5,
    loss: Annotated[LossName, typer.Option(help="Permutation-invariant loss.")] = LossName.SI_SDR,
    distil: Annotated[
        float, typer.Option(help="Weight of the loss against the dense network's output; 0 leaves it out.")
    ] = 1.0,
    compensation: Annotated[
        float, typer.Option(help="Seconds of audio for the closed-form compensation before; 0 leaves it out.")
    ] = 60.0,
    macs: Annotated[
        float | None,
        typer.Option(help="Prune on, down to this share of the dense network's MACs.", rich_help_panel=GRADUALLY),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of pruning to get there.", rich_help_panel=GRADUALLY)] = 3,
    round_steps: Annotated[
        int, typer.Option(min=1, help="Steps from one round to the next.", rich_help_panel=GRADUALLY)
    ] = 200,
    criterion: Annotated[
        str, typer.Option(help="What tells important channels.", rich_help_panel=GRADUALLY)
    ] = "reconstruction",
    accelerator: Annotated[str, typer.Option(help="cpu, cuda or auto.", rich_help_panel="Devices")] = "auto",
    devices: Annotated[int, typer.Option(help="Devices of each machine.", rich_help_panel="Devices")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines, under torchrun.", rich_help_panel="Devices")] = 1,
    precision: Annotated[
        str, typer.Option(help="32-true, bf16-mixed or 16-mixed.", rich_help_panel="Devices")
    ] = "32-true",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write a TensorBoard log into the run.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Recover the quality of a saved result: closed-form compensation, then training on mixtures of speakers."""
    request = network_request(network, checkpoint, kwargs, input_shape, seed)
    heard = SpeechRequest(
        speakers=speakers,
        corpus=corpus,
        librimix=librimix,
        manifests=manifests,
        mixture=mixture,
        sample_rate=sample_rate,
    )
    folder = run or destination.with_name(f"{destination.name}.run")
    with working(), ExitStack() as stack:
        check_speech(heard)
        if os.path.lexists(destination):
            raise InputError(f"{destination} exists already; give another --output")
        settings = RecoverySettings(
            steps=steps,
            learning_rate=learning_rate,
            falling=falling,
            check_every=check_every,
            waveform_weight=distil,
            seed=seed,
        )
        fabric = _launched(accelerator, devices, nodes, precision)
        saved = read(directory)
        dense, example = open_network(request, floating_dtype(saved.state.tensors))
        asked = RoundsRequest(macs=macs, count=rounds, between=round_steps, criterion=criterion)
        gradual = gradual_pruning(asked, saved, example)
        speech = _Speech(open_speech(heard), seconds, batch, example)
        chosen: Loss = {LossName.SI_SDR: pit_si_sdr_loss, LossName.SNR: pit_snr_loss}[loss]
        start = load(dense, directory)
        if compensation > 0 and not (folder / LAST).exists():
            count = max(1, round(compensation / (seconds * batch)))
            start = _compensated(dense, start, saved, speech, count, chosen, fabric)
        shows = [stack.enter_context(tensorboard_log(folder / "log"))] if tensorboard and fabric.is_global_zero else []
        found = recover(
            start,
            lambda number: speech.train(seed, number),
            settings,
            validation=speech.validation(seed),
            loss=chosen,
            teacher=dense if settings.distils else None,
            gradual=gradual,
            run=folder,
            fabric=fabric,
            progress=_progress([*shows, partial(_show, settings)]),
        )
        if fabric.is_global_zero:
            write(recovered(saved, dense, example, found, criterion), destination)
    if fabric.is_global_zero:
        _report(found, network, destination, as_json)


class _Speech:
    """Mixtures of two speakers in the layout of the network's example; validation on other utterances."""

    def __init__(self, speech: Speech, seconds: float, size: int, example: Any) -> None:
        signal = mono_signal(example, "finetune needs a network that takes")
        self._train, self._validation = speech.stream("train", seconds), speech.stream("validation", seconds)
        self._size, self._has_channel, self._dtype = size, signal.dim() == 3, signal.dtype

    def train(self, seed: int, start: int) -> Iterator[Batch]:
        """Endless batches from number ``start`` on."""
        return map(self._shaped, self._train.batches(seed, self._size, start))

    def validation(self, seed: int) -> list[Batch]:
        """Always the same batches."""
        batches = self._validation.batches(seed, self._size)
        return [self._shaped(batch) for batch in itertools.islice(batches, VALIDATION_BATCHES)]

    def _shaped(self, batch: tuple[Tensor, Tensor]) -> Batch:
        mixture, sources = batch
        return (mixture if self._has_channel else mixture[:, 0]).to(self._dtype), sources.to(self._dtype)


def _launched(accelerator: str, devices: int, nodes: int, precision: Any) -> "Fabric":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports, about their own imports
        from lightning_fabric import Fabric  # takes seconds to import

    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=precision)
    except (ValueError, RuntimeError) as error:  # MisconfigurationException among them
        raise InputError(f"these devices or this precision cannot be had: {error}") from error
    fabric.launch()
    return fabric


def _compensated(
    dense: nn.Module,
    pruned: nn.Module,
    saved: SavedNetwork,
    speech: _Speech,
    count: int,
    loss: Loss,
    fabric: "Fabric",
) -> nn.Module:
    """The compensated network, if it is the better one on validation audio."""
    inputs = [fabric.to_device(inputs) for inputs, _ in itertools.islice(speech.train(0, 0), count)]
    found = compensate(fabric.to_device(dense), fabric.to_device(pruned), saved.plan, inputs)
    before, after = (_mean_loss(model, speech.validation(0), loss, fabric) for model in (pruned, found.model))
    fitted = f"{len(found.layers)} of {len(found.layers) + len(found.skipped)} layers"
    note(f"closed-form compensation of {fitted}: validation loss {before:.2f} -> {after:.2f} dB")
    return found.model if after < before else pruned


@torch.no_grad()
def _mean_loss(network: nn.Module, batches: list[Batch], loss: Loss, fabric: "Fabric") -> float:
    losses = [loss(network(inputs), targets) for inputs, targets in map(fabric.to_device, batches)]
    return float(torch.stack(losses).mean())


def _progress(shows: list[Callable[[Check], None]]) -> Callable[[Check], None]:
    def show(check: Check) -> None:
        for each in shows:
            each(check)

    return show


def _show(settings: RecoverySettings, check: Check) -> None:
    training = "loss with the dense network's" if settings.distils else "loss"
    losses = {training: check.loss, "validation": check.validation}
    shown = "".join(f"{name} {value:.2f} dB, " for name, value in losses.items() if value is not None)
    note(f"step {check.step}: {shown}learning rate {check.learning_rate:.1e}")


def _report(found: Recovery, network: str, destination: Path, as_json: bool) -> None:
    best = next(check for check in found.checks if check.step == found.best_step)
    if as_json:
        checks = [asdict(check) for check in found.checks]
        print_json({"network": network, "best": asdict(best), "checks": checks, "saved_to": str(destination)})
    else:
        output().print(f"validation loss {best.figure:.2f} dB after step {best.step}; saved to {destination}")
