"""The running state of a recovery: what a checkpoint stores, and how it moves by one step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from prunegraph.capture.example import call_arguments
from prunegraph.capture.modes import in_mode
from prunegraph.errors import InputError
from prunegraph.graph import build_graph
from prunegraph.importance.scoring import Scoring, as_criterion
from prunegraph.ir.plan import PruningPlan
from prunegraph.proving import cut_and_prove
from prunegraph.recovery.batches import Batch, Data, seed_generators, share, stream
from prunegraph.recovery.distillation import Loss, distillation_loss, features_of
from prunegraph.recovery.settings import Check, GradualPruning, RecoverySettings
from prunegraph.surgery.optimizer import slice_optimizer
from prunegraph.surgery.slicing import apply

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_SAME = 1e-3
"""By how much the norms of one network's tensors may differ, relatively, from day to day: compensation rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What does not change during a recovery.

    Attributes:
        data: batches to learn from.
        validation: batches to check on.
        settings: numbers.
        loss: takes outputs and targets to a scalar.
        teacher: the dense network on the device of the training, in evaluation mode; None without distillation.
        gradual: rounds of pruning; None for none.
        fabric: devices and precision.
    """

    data: Data
    validation: Sequence[Batch]
    settings: RecoverySettings
    loss: Loss
    teacher: nn.Module | None
    gradual: GradualPruning | None
    fabric: "Fabric"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Best:
    """The best network so far.

    Attributes:
        figure: its loss.
        step: when it was found.
        network: its state dict.
    """

    figure: float
    step: int
    network: Mapping[str, Tensor]


class Training:
    """A network with its optimizer, schedule and position.

    Args:
        network: what is trained, in place; pruning puts another in its place.
        task: what does not change.
    """

    def __init__(self, network: nn.Module, task: Task) -> None:
        self.task = task
        self.step = 0
        self.plans: list[PruningPlan] = []
        self.checks: list[Check] = []
        self.best: Best | None = None
        self.stale = 0
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not parameters:
            raise InputError("no parameter of the network requires a gradient: there is nothing to train")
        self._began = {name: float(parameter.detach().norm()) for name, parameter in network.named_parameters()}
        self._set_up(network, Adam(parameters, lr=task.settings.learning_rate))

    def _set_up(self, network: nn.Module, optimizer: Optimizer) -> None:
        self.network, self.optimizer = in_mode(network, training=True), optimizer
        self.wrapped, self.wrapped_optimizer = self.task.fabric.setup(network, optimizer)
        settings = self.task.settings
        self.schedule = ReduceLROnPlateau(optimizer, factor=settings.factor, patience=settings.patience)

    @property
    def rounds(self) -> int:
        """Rounds of pruning in all."""
        return 0 if self.task.gradual is None else len(self.task.gradual.budgets)

    @property
    def can_be_best_untrained(self) -> bool:
        """Whether the network that was given is of the final size, and can be measured before the first step."""
        return self.step == 0 and self.rounds == 0 and bool(self.task.validation) and not self.checks

    @property
    def is_over(self) -> bool:
        """Whether all steps are made, or no improvement is in sight."""
        limit = self.task.settings.stop_after
        stuck = limit is not None and self.stale >= limit and len(self.plans) == self.rounds
        return stuck or self.step >= self.task.settings.steps

    def prune_if_due(self) -> None:
        """Makes the next round of pruning, if it is time."""
        gradual, done = self.task.gradual, len(self.plans)
        if gradual is None or done == self.rounds or self.step < done * gradual.between:
            return
        text = self._chosen(gradual, done).to_json() if self.task.fabric.is_global_zero else ""
        plan = PruningPlan.from_json(self.task.fabric.broadcast(text))
        pruned = apply(self.network, plan)
        self.plans.append(plan)
        self.best, self.stale = None, 0
        self._set_up(pruned, slice_optimizer(self.optimizer, self.network, pruned, plan))

    def _chosen(self, gradual: GradualPruning, done: int) -> PruningPlan:
        """The plan of a round, proved right."""
        example, settings = self._moved(gradual.example_inputs), self.task.settings
        data = [self._moved(b) for b in islice(stream(self.task.data, self.step, settings.seed), gradual.batches)]
        graph = build_graph(self.network, example)
        budget, criterion = gradual.budgets[done], as_criterion(gradual.criterion)
        scoring = Scoring(criterion=criterion, data=data, loss=self.task.loss, seed=settings.seed)
        scores = scoring(graph, self.network, budget)
        return cut_and_prove(self.network, graph, scores, budget, example).plan

    def advance(self, batch: Batch) -> Tensor:
        """One step of Adam; returns the loss on this process's share of the batch."""
        fabric, settings = self.task.fabric, self.task.settings
        inputs, targets = self._moved(share(batch, fabric.global_rank, fabric.world_size))
        seed_generators(settings.seed, self.step, fabric.global_rank, 1)
        self.wrapped_optimizer.zero_grad()
        loss = self._loss(inputs, targets)
        fabric.backward(loss)
        fabric.clip_gradients(
            self.wrapped, self.wrapped_optimizer, max_norm=settings.clip_norm, error_if_nonfinite=False
        )
        with self._fallen_rate():
            self.wrapped_optimizer.step()
        self.step += 1
        return loss.detach()

    @property
    def _share_of_rate(self) -> float:
        """What is left of the learning rate near the end."""
        falling = self.task.settings.falling * self.task.settings.steps
        return min(1.0, (self.task.settings.steps - self.step) / falling) if falling > 0 else 1.0

    @contextmanager
    def _fallen_rate(self) -> Iterator[None]:
        """The schedule goes on from the rates that it set."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * self._share_of_rate
        yield
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _loss(self, inputs: Any, targets: Any) -> Tensor:
        args, kwargs = call_arguments(inputs)
        settings, teacher = self.task.settings, self.task.teacher
        with features_of(self.network, settings.features) as features:
            output = self.wrapped(*args, **kwargs)
        loss = self.task.loss(output, targets)
        if teacher is None:
            return loss

        def run_teacher() -> Any:
            with self.task.fabric.autocast():
                return teacher(*args, **kwargs)

        return loss + distillation_loss(output, features, run_teacher, teacher, settings, self.task.loss)

    def check(self, losses: Sequence[Tensor]) -> Check:
        """Measures, remembers the best network, and lets the schedule follow.

        Args:
            losses: of the steps since the last check; without any, there must be validation batches.

        Raises:
            InputError: a loss is not finite.
        """
        fabric = self.task.fabric
        loss = float(fabric.broadcast(_mean_over_processes(fabric, losses))) if losses else None
        validation = float(fabric.broadcast(self._validate())) if self.task.validation else None
        found = [value for value in (loss, validation) if value is not None]
        if not all(map(math.isfinite, found)):
            where = f"in steps {self.step - len(losses) + 1} to {self.step}" if losses else "before the first step"
            raise InputError(f"the loss is {found} {where}: lower the learning rate or mend the batches")
        figure = found[-1]
        self.schedule.step(figure)
        self.stale += 1
        if self.best is None or figure < self.best.figure:
            state = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
            self.best, self.stale = Best(figure=figure, step=self.step, network=state), 0
        rate = float(self.optimizer.param_groups[0]["lr"]) * self._share_of_rate
        self.checks.append(Check(step=self.step, loss=loss, validation=validation, learning_rate=rate))
        return self.checks[-1]

    @torch.no_grad()
    def _validate(self) -> Tensor:
        self.network.eval()
        found = []
        for number, batch in enumerate(self.task.validation):
            inputs, targets = self._moved(batch)
            seed_generators(self.task.settings.seed, number, 2)
            args, kwargs = call_arguments(inputs)
            found.append(self.task.loss(self.wrapped(*args, **kwargs), targets))
        self.network.train()
        return torch.stack(found).mean()

    def _moved(self, batch: Any) -> Any:
        return self.task.fabric.to_device(batch)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on; generators need not be stored, since the step decides their state."""
        best = self.best
        return {
            "settings": _fixed(self.task.settings),
            "began": self._began,
            "step": self.step,
            "stale": self.stale,
            "plans": [plan.to_json() for plan in self.plans],
            "checks": [asdict(check) for check in self.checks],
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "precision": self.task.fabric.strategy.precision.state_dict(),
            "best": None if best is None else {f: getattr(best, f) for f in ("figure", "step", "network")},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a stored state.

        Raises:
            InputError: the run was begun with other settings, a network of other weights, other validation batches or
                another loss.
        """
        ours, theirs = _fixed(self.task.settings), state["settings"]
        if ours != theirs:
            name = next(name for name in ours if ours[name] != theirs.get(name))
            raise InputError(
                f"the run was begun with {name} = {theirs.get(name)}, not {ours[name]}: repeat its settings, or give "
                "another folder"
            )
        other = _first_other(self._began, state["began"])
        if other is not None:
            raise InputError(f"the run was begun with another network, of another {other}: give another folder")
        network = self.network
        for text in state["plans"]:
            self.plans.append(PruningPlan.from_json(text))
            network = apply(network, self.plans[-1])
        if self.plans:
            self._set_up(network, Adam([p for p in network.parameters() if p.requires_grad]))
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.task.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.stale = state["step"], state["stale"]
        self.checks = [Check(**check) for check in state["checks"]]
        self.best = None if state["best"] is None else Best(**state["best"])
        if self.checks:
            self._check_validation(self.checks[-1])

    def _check_validation(self, last: Check) -> None:
        """Losses are compared over the whole run, so they must be of the same batches and the same function."""
        now = float(self.task.fabric.broadcast(self._validate())) if self.task.validation else None
        if now is None or last.validation is None:
            same = now is last.validation
        else:
            same = math.isclose(now, last.validation, rel_tol=_SAME, abs_tol=_SAME)
        if not same:
            raise InputError(
                f"the validation loss at step {last.step} was {last.validation} and is {now} now: give the validation "
                "batches and the loss that the run was begun with, or another folder"
            )


def _mean_over_processes(fabric: "Fabric", losses: Sequence[Tensor]) -> Tensor:
    mean = fabric.all_reduce(torch.stack(list(losses)).mean())
    assert isinstance(mean, Tensor)
    return mean


def _first_other(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str | None:
    """The first tensor whose norms differ by more than the rounding of what was computed on another day."""
    same = (math.isclose(ours.get(name, math.nan), norm, rel_tol=_SAME) for name, norm in theirs.items())
    return next((name for name, is_same in zip(theirs, same, strict=True) if not is_same), None)


def _fixed(settings: RecoverySettings) -> dict[str, Any]:
    """The settings that decide the steps already made; more or fewer steps may follow."""
    fixed = asdict(settings)
    del fixed["steps"], fixed["stop_after"]
    return fixed
