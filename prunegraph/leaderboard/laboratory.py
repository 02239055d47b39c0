"""Where cells are measured: a study's networks and speech, opened in one process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import nn

from prunegraph.capture.clone import named_tensors
from prunegraph.capture.modes import in_mode
from prunegraph.capture.state import seeded
from prunegraph.evaluation.intervals import MeanInterval
from prunegraph.evaluation.separation import evaluate
from prunegraph.graph import build_graph
from prunegraph.importance.scoring import Scoring
from prunegraph.ir.budget import Budget
from prunegraph.leaderboard.results import Quality
from prunegraph.leaderboard.scratch import from_scratch
from prunegraph.leaderboard.study import DENSE, REFERENCE, SCRATCH, Cell, Recovery, Study
from prunegraph.pipeline import PruningResult, prune_in_stages
from prunegraph.plugin.manager import find_criterion
from prunegraph.recovery.batches import Batch, mono_signal
from prunegraph.recovery.compensation import compensate
from prunegraph.recovery.finetuning import FineTuningSettings, fine_tune
from prunegraph.recovery.losses import pit_si_sdr_loss
from prunegraph.surgery.slicing import copy_of

TEST_SEED = 0
"""Decides the test mixtures, the same for all cells; `prunegraph evaluate --seed 0` takes them, too."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Separator:
    """A dense network that takes one mono signal.

    Attributes:
        network: in evaluation mode, on the study's device.
        dims: 2 for a network that takes ``(batch, time)``, 3 for ``(batch, 1, time)``.
        dtype: of the signal.
    """

    network: nn.Module
    dims: Literal[2, 3]
    dtype: torch.dtype

    def shaped(self, batch: Batch) -> Batch:
        """Mixtures ``(batch, 1, time)`` and sources as the network takes them, on its device."""
        mixture, sources = batch
        device = next(self.network.parameters()).device
        signal = mixture if self.dims == 3 else mixture[:, 0]
        return signal.to(device, self.dtype), sources.to(device, self.dtype)


class Laboratory:
    """Measures the cells of a study; what it finds depends on the study and the cell only.

    Raises:
        DataError: the speech is missing, bad, or too little.
    """

    def __init__(self, study: Study) -> None:
        self.study, effort = study, study.effort
        self.speech = study.speech()
        self._train = self.speech.stream("train", effort.seconds)
        self._test = self.speech.test(TEST_SEED, effort.mixtures)

    def open(self, name: str) -> Separator:
        """A network of the study.

        Raises:
            InputError: it does not take one mono signal.
        """
        network, example = next(entrant for entrant in self.study.entrants if entrant.name == name).open()
        signal = mono_signal(example, f"{name} must take")
        dims: Any = signal.dim()
        return Separator(network=in_mode(network.to(self.study.device), training=False), dims=dims, dtype=signal.dtype)

    def batches(self, separator: Separator, seed: int, start: int = 0) -> Iterator[Batch]:
        """Endless batches of training mixtures; criteria see the first ones, fine-tuning what comes after."""
        return map(separator.shaped, self._train.batches(seed, self.study.effort.batch, start))

    def heard(self, separator: Separator, seed: int) -> list[Batch]:
        """The batches that a criterion may look at."""
        return list(islice(self.batches(separator, seed), self.study.effort.batches))

    def measure(self, cell: Cell) -> Quality:
        """Scores, prunes, proves, recovers and tests.

        Raises:
            PrunegraphError: a stage failed, each with its own kind.
        """
        separator = self.open(cell.network)
        if cell.criterion == DENSE:
            return self._dense(separator)
        name = REFERENCE if cell.criterion == SCRATCH else cell.criterion
        data, watch = self.heard(separator, cell.seed), StageTimes()
        scoring = Scoring(criterion=find_criterion(name), data=data, loss=pit_si_sdr_loss, seed=cell.seed)
        budget = Budget(macs=cell.budget)
        result = prune_in_stages(separator.network, data[0][0], budget, scoring, stage=watch.stage)
        if cell.criterion == SCRATCH:
            fresh = from_scratch(result.model, cell.seed)
            si_sdri = {"tuned": self._test_of(separator, self._tuned(separator, cell, fresh))}
        else:
            si_sdri = dict(self._recoveries(separator, cell, result))
        return Quality(
            parameters=result.report.pruned.parameters,
            weight_bytes=bytes_of(result.model),
            macs_per_second=self._per_second(result.report.pruned.macs),
            macs_share=result.report.pruned.macs / result.report.dense.macs,
            scoring_s=None if cell.criterion == SCRATCH else watch.seconds[f"scoring by {name}"],
            si_sdri=si_sdri,
            plan=result.plan.to_json(),
        )

    def _dense(self, separator: Separator) -> Quality:
        cost = build_graph(separator.network, next(self.batches(separator, 0))[0]).cost()
        return Quality(
            parameters=cost.parameters,
            weight_bytes=bytes_of(separator.network),
            macs_per_second=self._per_second(cost.macs),
            macs_share=1.0,
            scoring_s=None,
            si_sdri={"pruned": self._test_of(separator, separator.network)},
            plan=None,
        )

    def _recoveries(
        self, separator: Separator, cell: Cell, result: PruningResult
    ) -> Iterator[tuple[str, MeanInterval]]:
        """The quality after surgery and after each recovery that was asked for."""
        yield "pruned", self._test_of(separator, result.model)
        asked = self.study.recoveries
        compensated = result.model
        if {"compensated", "both"} & set(asked):
            count = self.study.effort.compensation_batches
            inputs = [mixture for mixture, _ in islice(self.batches(separator, cell.seed), count)]
            compensated = compensate(separator.network, result.model, result.plan, inputs).model
        ways: dict[Recovery, Callable[[], nn.Module]] = {
            "compensated": lambda: compensated,
            "tuned": lambda: self._tuned(separator, cell, result.model),
            "both": lambda: self._tuned(separator, cell, compensated),
        }
        for recovery in asked:
            yield recovery, self._test_of(separator, ways[recovery]())

    def _tuned(self, separator: Separator, cell: Cell, network: nn.Module) -> nn.Module:
        effort = self.study.effort
        settings = FineTuningSettings(steps=effort.steps, learning_rate=effort.learning_rate)
        copied = copy_of(network)  # also where weights are computed, as by weight norm, and have a history
        with seeded(cell.seed, network.parameters()):  # dropout draws
            return fine_tune(copied, self.batches(separator, cell.seed, effort.batches), settings)

    def _test_of(self, separator: Separator, network: nn.Module) -> MeanInterval:
        found = evaluate(network, self._test, self.speech.sample_rate, metrics=("si_sdr",), input_dims=separator.dims)
        return found.means["si_sdri"]

    def _per_second(self, macs: int) -> int:
        """Of the MACs of one batch."""
        return round(macs / (self.study.effort.batch * self.study.effort.seconds))


class StageTimes:
    """How long each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times one stage."""
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def bytes_of(network: nn.Module) -> int:
    """Memory of parameters and buffers; what is tied counts once."""
    tensors = {id(tensor): tensor for tensor in named_tensors(network).values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Limits torch's threads on the CPU for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
