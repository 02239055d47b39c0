"""Short fine-tuning of a pruned separator.

This is the simplest recovery: a given number of Adam steps on one device. Checkpoints, features of the dense network
and several devices belong to a fuller recovery beside this module, on the same losses.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunegraph.capture.modes import in_mode
from prunegraph.errors import DataError, InputError
from prunegraph.recovery.losses import pit_si_sdr_loss
from prunegraph.surgery.slicing import copy_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningSettings:
    """How a network is fine-tuned.

    Attributes:
        steps: optimizer steps.
        learning_rate: of Adam at the first step; it falls linearly to zero.
        clip_norm: largest norm of the gradient.
    """

    steps: int = 300
    learning_rate: float = 1e-3
    clip_norm: float = 5.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.clip_norm <= 0:
            raise InputError(f"Fine-tuning settings must be positive, got {self}.")


def fine_tune(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    settings: FineTuningSettings | None = None,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = pit_si_sdr_loss,
    teacher: nn.Module | None = None,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> nn.Module:
    """Trains a copy of the network for some steps of Adam; deterministic for the same batches.

    Args:
        network: takes mixtures ``(batch, 1, time)`` to estimates ``(batch, speakers, time)``; left as it is.
        batches: mixtures and sources ``(batch, speakers, time)``, at least one pair for each step.
        settings: steps and rates.
        loss: takes estimates and sources to a scalar.
        teacher: the dense network, in evaluation mode; the loss against its estimates is added, which is a steadier
            guide than that against the sources alone.
        progress: called after each step with its number and loss.

    Returns:
        The fine-tuned copy, with the training flags of the original.

    Raises:
        DataError: the batches end early.
        InputError: the loss is not finite.
    """
    settings = settings or FineTuningSettings()
    tuned = in_mode(copy_of(network), training=True)
    device = next(tuned.parameters()).device
    optimizer = torch.optim.Adam(tuned.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=settings.steps)
    step = 0
    for step, (mixture, sources) in zip(range(1, settings.steps + 1), batches, strict=False):
        optimizer.zero_grad()
        value = _loss(tuned, mixture.to(device), sources.to(device), loss, teacher)
        if not torch.isfinite(value):
            raise InputError(f"The loss is {value.item()} at step {step}: lower the learning rate or mend the batches.")
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(tuned.parameters(), settings.clip_norm)
        optimizer.step()
        schedule.step()
        progress(step, value.item())
    if step < settings.steps:
        raise DataError(f"The batches ended after {step} of {settings.steps} steps; give more of them.")
    for copied, original in zip(tuned.modules(), network.modules(), strict=True):
        copied.training = original.training
    return tuned


def _loss(
    network: nn.Module,
    mixture: Tensor,
    sources: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    teacher: nn.Module | None,
) -> Tensor:
    estimates = network(mixture)
    if teacher is None:
        return loss(estimates, sources)
    with torch.no_grad():
        learned = teacher(mixture)
    return loss(estimates, sources) + loss(estimates, learned)
