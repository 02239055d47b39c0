"""`recover`: trains a pruned network back to quality."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunegraph.capture.check import check_model
from prunegraph.capture.state import seeded
from prunegraph.errors import InputError
from prunegraph.ir.plan import PruningPlan
from prunegraph.recovery.batches import Batch, Data, stream
from prunegraph.recovery.checkpoint import read_checkpoint, write_checkpoint
from prunegraph.recovery.distillation import Loss
from prunegraph.recovery.losses import pit_si_sdr_loss
from prunegraph.recovery.settings import Check, GradualPruning, RecoverySettings
from prunegraph.recovery.training import Task, Training
from prunegraph.surgery.slicing import copy_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LAST, BEST = "last.pt", "best.pt"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recovery:
    """What came of a recovery.

    Attributes:
        model: a copy of the network with the best weights, on its device and in its training mode.
        plans: the rounds of gradual pruning; each is for the network that the one before left.
        checks: what was measured on the way.
        best_step: the step after which the best weights were found.
    """

    model: nn.Module
    plans: tuple[PruningPlan, ...]
    checks: tuple[Check, ...]
    best_step: int


def recover(
    network: nn.Module,
    data: Data,
    settings: RecoverySettings | None = None,
    *,
    validation: Sequence[Batch] = (),
    loss: Loss = pit_si_sdr_loss,
    teacher: nn.Module | None = None,
    gradual: GradualPruning | None = None,
    run: Path | None = None,
    fabric: "Fabric | None" = None,
    progress: Callable[[Check], None] = lambda check: None,
) -> Recovery:
    """Trains a copy of a network: Adam, clipped gradients, a learning rate that falls on a plateau, early stopping.

    With a folder for the run it can be killed at any moment and called again with the same arguments: it goes on from
    the last checkpoint and, on the CPU, ends with the same bits as if it had never stopped. The folder holds
    ``last.pt``, with all of the state, and ``best.pt``, with the best weights; both are read by ``torch.load`` with
    ``weights_only=True``. With several processes each takes its share of every batch, so that their number does
    not change what is learnt (but for rounding, and statistics of batch norm).

    Args:
        network: pruned or, with ``gradual``, still to be pruned; left as it is.
        data: batches ``(inputs, targets)``: a list, a data loader, or a function that gives the batches from number
            ``start`` on, which makes resuming quick.
        settings: numbers.
        validation: batches to decide by, so that what comes out is never worse on them than what went in; without
            any, the training loss decides.
        loss: takes outputs and targets to a scalar; less is better.
        teacher: the dense network, for distillation; left as it is.
        gradual: rounds of pruning on the way.
        run: folder of the checkpoints; nothing is written without.
        fabric: a launched `lightning_fabric.Fabric`, which says devices, processes and precision; by default one
            device, where the network is, in full precision.
        progress: called after each check.

    Returns:
        The best network of the final size.

    Raises:
        InputError: settings contradict the run's or each other, or the loss is not finite.
        DataError: the batches end early.
        FileFormatError: a checkpoint is damaged.
    """
    settings = settings or RecoverySettings()
    check_model(network)
    _check_request(settings, teacher, gradual)
    device = next(network.parameters()).device
    launched = fabric or _one_device(device)
    copied = None if teacher is None else launched.to_device(copy_of(teacher)).requires_grad_(False)
    task = Task(
        data=data,
        validation=validation,
        settings=settings,
        loss=loss,
        teacher=copied,
        gradual=gradual,
        fabric=launched,
    )
    with seeded(settings.seed, [torch.empty(0, device=launched.device)]), torch.enable_grad():
        training = Training(launched.to_device(copy_of(network)), task)
        _go_on(training, run)
        _train(training, run, progress)
    return _result(training, network, device)


def _check_request(settings: RecoverySettings, teacher: nn.Module | None, gradual: GradualPruning | None) -> None:
    if settings.distils != (teacher is not None):
        raise InputError("distillation needs a teacher, and a weight in the settings that is not zero")
    if gradual is not None and settings.steps <= gradual.between * (len(gradual.budgets) - 1):
        raise InputError(f"{len(gradual.budgets)} rounds of {gradual.between} steps do not fit in {settings.steps}")


def _one_device(device: torch.device) -> "Fabric":
    from lightning_fabric import Fabric  # takes seconds to import

    devices = [device.index or 0] if device.type == "cuda" else 1
    fabric = Fabric(accelerator=device.type, devices=devices)
    fabric.launch()
    return fabric


def _go_on(training: Training, run: Path | None) -> None:
    if run is not None and (run / LAST).exists():
        training.restore(read_checkpoint(run / LAST))


def _train(training: Training, run: Path | None, progress: Callable[[Check], None]) -> None:
    settings = training.task.settings
    batches = stream(training.task.data, training.step, settings.seed)
    losses: list[Tensor] = []
    if training.can_be_best_untrained:
        progress(training.check(losses))
    while not training.is_over:
        training.prune_if_due()
        losses.append(training.advance(next(batches)))
        if training.step % settings.check_every == 0 or training.step == settings.steps:
            check = training.check(losses)
            losses.clear()
            _write(training, run)
            progress(check)


def _write(training: Training, run: Path | None) -> None:
    """``last.pt`` holds the best weights, too, so that one file, the later one, decides how a run goes on."""
    best = training.best
    if run is None or best is None or not training.task.fabric.is_global_zero:
        return
    if best.step == training.step:
        plans = [plan.to_json() for plan in training.plans]
        write_checkpoint({"network": best.network, "plans": plans, "step": best.step, "loss": best.figure}, run / BEST)
    write_checkpoint(training.state(), run / LAST)


def _result(training: Training, network: nn.Module, device: torch.device) -> Recovery:
    best, model = training.best, training.network
    assert best is not None  # the last step is always checked
    model.load_state_dict(best.network)
    flags = {path: module.training for path, module in network.named_modules()}
    for path, module in model.named_modules():
        module.training = flags.get(path, network.training)
    return Recovery(
        model=model.to(device), plans=tuple(training.plans), checks=tuple(training.checks), best_step=best.step
    )
