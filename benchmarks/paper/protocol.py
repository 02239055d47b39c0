"""The protocol: prune, compensate, fine-tune, train the same small network from scratch; score each on the test set."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

import prunegraph
from benchmarks.paper.journal import Journal, Stage
from benchmarks.paper.speech import Speech
from prunegraph.evaluation.separation import evaluate
from prunegraph.io.saved_network import SavedNetwork, read, write
from prunegraph.io.state import state_of
from prunegraph.plugin import Criterion
from prunegraph.recovery.distillation import Loss
from prunegraph.recovery.finetuning import FineTuningSettings, fine_tune
from prunegraph.recovery.recovering import Recovery, recover
from prunegraph.recovery.settings import Check, RecoverySettings
from prunegraph_sepprune import SepPrune
from prunegraph_sepprune.learning import LearningSettings

DENSE, PRUNED, COMPENSATED, SCRATCH = "dense", "pruned", "compensated", "from scratch"
FALLING = "as above, one mixture a step, rate falling to zero, taught by the dense network"
RECOVERED = (PRUNED, COMPENSATED, FALLING)
TRAINING_SEED, HEARD_SEED = 1000, 2000  # others than those of the dense network's training


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The paper's numbers, and ours where it has none.

    Attributes:
        criterion: name of an importance criterion.
        mask_steps: steps in which masks are learned.
        compensation: seconds of audio for closed-form compensation, which the paper does not have; 0 leaves it out.
        seconds: length of a training mixture.
        batch: mixtures in a step.
        seed: the only source of randomness.
    """

    criterion: str = "sepprune"
    mask_steps: int = 500
    compensation: float = 60.0
    seconds: float = 2.0
    batch: int = 1
    seed: int = 0

    def importance(self) -> str | Criterion:
        """The criterion; learned masks with this recipe's number of steps."""
        learning = LearningSettings(steps=self.mask_steps)
        learned = (SepPrune(learning=learning), SepPrune(mode="epsilon", learning=learning))
        return next((masks for masks in learned if masks.name == self.criterion), self.criterion)

    def training(self, mixtures: int, epochs: int) -> RecoverySettings:
        """Adam at 1e-3, gradients clipped at 5, the rate halved after 15 stale epochs, the end after 30."""
        steps = max(1, mixtures // self.batch)
        return RecoverySettings(
            steps=epochs * steps,
            check_every=steps,
            learning_rate=1e-3,
            clip_norm=5.0,
            patience=15,
            factor=0.5,
            stop_after=30,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """What the protocol is run on.

    Attributes:
        about: separator, data and title, as the journal keeps them.
        dense: the trained network, on the device of the run.
        untrained: makes the same architecture with random weights.
        budget: what may stay.
        loss: with which masks and weights are trained.
        speech: mixtures.
    """

    about: Mapping[str, str]
    dense: nn.Module
    untrained: Callable[[], nn.Module]
    budget: prunegraph.Budget
    loss: Loss
    speech: Speech


class Run:
    """One run of the protocol in a folder; interrupted and begun again, it goes on where it was.

    Args:
        subject: network and mixtures.
        recipe: numbers.
        folder: of results and checkpoints.
        say: told of what is being done.

    Raises:
        InputError: the folder holds a run with other settings.
    """

    def __init__(self, subject: Subject, recipe: Recipe, folder: Path, say: Callable[[str], None]) -> None:
        self.subject, self.recipe, self.folder, self.say = subject, recipe, folder, say
        speech = {"sample_rate": subject.speech.sample_rate, "speech": subject.speech.description}
        self.journal = Journal(folder, {**subject.about, "budget": _text(subject.budget), **speech, **asdict(recipe)})
        self.device = next(subject.dense.parameters()).device

    def measure(self, epochs: int, scratch: int) -> None:
        """Runs all stages.

        Args:
            epochs: of fine-tuning at most.
            scratch: epochs of training from scratch at most; it ends when it has reached the other networks' level.
        """
        self._score(DENSE, 0, lambda: self.subject.dense)
        network, name = self.pruned(), PRUNED
        self._recover(PRUNED, network)
        if self.recipe.compensation > 0:
            network, name = self.compensated(network), COMPENSATED
            self._recover(COMPENSATED, network)
        self._score(FALLING, 1, partial(self._trained_with_falling_rate, network))
        if epochs > 1:
            found = self._trained(name, network, epochs)
            self._score(name, sum(check.step > 0 for check in found.checks), lambda: found.model)
        self._train_from_scratch(scratch)

    def pruned(self) -> nn.Module:
        """The network with fewer channels and its inherited weights, proved right."""
        subject, place = self.subject, self.folder / PRUNED
        if not place.exists():
            self.say(f"choosing channels by {self.recipe.criterion}")
            result = prunegraph.prune(
                subject.dense,
                torch.zeros(1, 1, subject.speech.sample_rate, device=self.device),
                budget=subject.budget,
                criterion=self.recipe.importance(),
                data=self._heard(self.recipe.mask_steps),
                loss=subject.loss,
                seed=self.recipe.seed,
                progress=self._show_masks,
                checkpoint=self.folder / "masks.safetensors",
            )
            prunegraph.save(result, place)
        return prunegraph.load(subject.dense, place)

    def compensated(self, pruned: nn.Module) -> nn.Module:
        """The pruned network with weights fitted in closed form."""
        place = self.folder / COMPENSATED
        if not place.exists():
            self.say("compensating")
            batches = round(self.recipe.compensation / (self.recipe.seconds * self.recipe.batch))
            inputs = [mixture for mixture, _ in self._heard(max(1, batches))]
            found = prunegraph.compensate(self.subject.dense, pruned, self._saved().plan, inputs)
            write(replace(self._saved(), state=state_of(found.model)), place)
        return prunegraph.load(self.subject.dense, place)

    def untrained(self) -> nn.Module:
        """A new network of the dense architecture, cut by the same plan."""
        torch.manual_seed(self.recipe.seed)
        fresh = self.subject.untrained().to(self.device)
        return prunegraph.apply(fresh, self._saved().plan)

    def _recover(self, name: str, network: nn.Module) -> None:
        self._score(name, 0, lambda: network)
        self._score(name, 1, partial(self._best, name, network, 1))

    def _train_from_scratch(self, most: int) -> None:
        network, level = self.untrained(), self._level()
        for epoch in range(1, most + 1):
            stage = self._score(SCRATCH, epoch, partial(self._best, SCRATCH, network, epoch))
            if stage.si_sdri.mean >= level:
                return

    def _level(self) -> float:
        """The best SI-SDRi that at most one epoch has given."""
        early = (stage for stage in self.journal.stages if stage.epochs <= 1 and stage.name in RECOVERED)
        return max(stage.si_sdri.mean for stage in early)

    def _best(self, name: str, network: nn.Module, epochs: int) -> nn.Module:
        return self._trained(name, network, epochs).model

    def _trained(self, name: str, network: nn.Module, epochs: int) -> Recovery:
        """By the paper's recipe."""
        self.say(f"{name}: training, epoch {epochs} at most")
        return recover(
            network,
            self._batches,
            self.recipe.training(self.subject.speech.epoch, epochs),
            validation=self.subject.speech.validation,
            loss=self.subject.loss,
            run=self.folder / "training" / name.replace(" ", "-"),
            progress=self._show_epoch,
        )

    def _trained_with_falling_rate(self, network: nn.Module) -> nn.Module:
        """One epoch, too short for the paper's schedule, which waits for a plateau, in as many steps as it can have."""
        self.say(f"{FALLING}: training, one epoch")
        subject = self.subject
        mixtures = subject.speech.train.batches(TRAINING_SEED + self.recipe.seed, 1)
        settings = FineTuningSettings(steps=subject.speech.epoch)
        return fine_tune(network, mixtures, settings, loss=subject.loss, teacher=subject.dense)

    def _batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        return self.subject.speech.train.batches(TRAINING_SEED + self.recipe.seed, self.recipe.batch, start)

    def _score(self, name: str, epochs: int, network: Callable[[], nn.Module]) -> Stage:
        known = self.journal.find(name, epochs)
        if known is not None:
            return known
        found, speech = network(), self.subject.speech
        means = evaluate(found, speech.test, speech.sample_rate).means
        stage = Stage(name=name, epochs=epochs, sdri=means["sdri"], si_sdri=means["si_sdri"])
        self.say(f"{name}, {epochs} epochs: SI-SDRi {stage.si_sdri} dB")
        return self.journal.add(stage)

    def _saved(self) -> SavedNetwork:
        return read(self.folder / PRUNED)

    def _heard(self, count: int) -> list[tuple[Tensor, Tensor]]:
        batches = self.subject.speech.train.batches(HEARD_SEED + self.recipe.seed, self.recipe.batch)
        return [(mixture.to(self.device), sources.to(self.device)) for mixture, sources in islice(batches, count)]

    def _show_masks(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        if step % 100 == 0 or step == steps:
            self.say(f"masks, step {step} of {steps}: " + ", ".join(f"{name} {v:.3g}" for name, v in figures.items()))

    def _show_epoch(self, check: Check) -> None:
        loss = "" if check.loss is None else f"loss {check.loss:.2f} dB, "
        self.say(f"step {check.step}: {loss}validation {check.validation:.2f} dB")


def _text(budget: prunegraph.Budget) -> str:
    """What is not as by default."""
    given = {field.name: getattr(budget, field.name) for field in fields(budget) if field.name != "pin"}
    return ", ".join(f"{name}={value}" for name, value in given.items() if value not in (None, 1, ()))
