"""What decides the result of a recovery."""

import math
from dataclasses import dataclass
from typing import Any

from prunegraph.errors import InputError
from prunegraph.ir.budget import Budget
from prunegraph.plugin.contracts import Criterion


@dataclass(frozen=True, slots=True, kw_only=True)
class GradualPruning:
    """Rounds of pruning in the middle of training; the optimizer's state is carried over each of them.

    Attributes:
        example_inputs: as for `prunegraph.build_graph`.
        budgets: one per round; a share counts from the network as it is at that time, so that three rounds of
            ``Budget(macs=0.5 ** (1 / 3))`` leave half.
        between: steps from one round to the next; the first comes before the first step.
        criterion: name of an installed importance criterion, or a criterion; it sees the loss and some batches.
        batches: how many of the coming batches it sees.
    """

    example_inputs: Any
    budgets: tuple[Budget, ...]
    between: int
    criterion: str | Criterion = "reconstruction"
    batches: int = 8

    def __post_init__(self) -> None:
        if not self.budgets or self.between < 1 or self.batches < 1:
            raise InputError("gradual pruning needs at least one budget, one step between rounds and one batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverySettings:
    """How a network is trained.

    The network is checked every ``check_every`` steps by its mean loss on the validation batches, before the first step
    too, or on the training batches since the last check where there are none.

    Attributes:
        steps: optimizer steps in all.
        learning_rate: of Adam at the beginning.
        clip_norm: largest norm of the gradient.
        check_every: steps between checks; a checkpoint follows each of them.
        patience: checks without improvement after which the learning rate is multiplied by ``factor``.
        factor: see ``patience``.
        falling: share of the steps, at the end, in which the learning rate falls linearly to 0, from what the plateaus
            left of it. With it a network settles, which a constant rate does not let it.
        stop_after: checks without improvement after which the training ends; None for never.
        waveform_weight: of the loss against the teacher's output, beside that against the targets.
        feature_weight: of the difference to the teacher's features.
        features: paths of the modules whose outputs are compared.
        seed: the only source of randomness.
    """

    steps: int = 2000
    learning_rate: float = 1e-3
    clip_norm: float = 5.0
    check_every: int = 100
    patience: int = 3
    factor: float = 0.5
    falling: float = 0.0
    stop_after: int | None = 10
    waveform_weight: float = 0.0
    feature_weight: float = 0.0
    features: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.steps, self.check_every, 1 if self.stop_after is None else self.stop_after)
        if min(counts) < 1 or self.patience < 0:
            raise InputError(f"steps, check_every and stop_after must be 1 or more, patience 0 or more, got {self}")
        if not (self.learning_rate > 0 and self.clip_norm > 0 and 0 < self.factor < 1):
            raise InputError(f"learning_rate and clip_norm must be positive, factor between 0 and 1, got {self}")
        if not 0 <= self.falling <= 1:
            raise InputError(f"falling must be a share of the steps, from 0 to 1, got {self}")
        if not all(math.isfinite(w) and w >= 0 for w in (self.waveform_weight, self.feature_weight)):
            raise InputError(f"the weights of distillation must not be negative, got {self}")
        if (self.feature_weight > 0) != bool(self.features):
            raise InputError("name the modules in features and give feature_weight, or neither")

    @property
    def distils(self) -> bool:
        """Whether a teacher is needed."""
        return self.waveform_weight > 0 or self.feature_weight > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found at a check.

    Attributes:
        step: optimizer steps made.
        loss: mean training loss since the last check; None before the first step.
        validation: mean loss on the validation batches; None without any.
        learning_rate: with which the training goes on.
    """

    step: int
    loss: float | None
    validation: float | None
    learning_rate: float

    @property
    def figure(self) -> float:
        """What decides which network is best."""
        figure = self.loss if self.validation is None else self.validation
        assert figure is not None  # before the first step there is a check only where there are validation batches
        return figure
