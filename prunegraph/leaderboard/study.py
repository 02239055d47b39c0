"""`Study`: what is to be measured, and the conditions that every measurement shares."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

import torch
from torch import nn

from prunegraph.data.speech import Speech
from prunegraph.errors import InputError

Recovery: TypeAlias = Literal["compensated", "tuned", "both"]
"""By closed-form compensation, by fine-tuning, by fine-tuning what was compensated."""

RECOVERIES: tuple[Recovery, ...] = ("compensated", "tuned", "both")
DENSE, RANDOM, SCRATCH = "dense", "random", "scratch"
"""The controls: the network as it is, channels left to chance, and a pruned architecture trained from the start."""

REFERENCE = "l1"
"""The criterion that chooses the architecture of ``scratch``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much work goes into each cell, the same for every criterion.

    Attributes:
        seconds: duration of the mixtures that criteria, compensation and fine-tuning see.
        batch: how many of them in a batch.
        batches: batches that a criterion may look at.
        compensation_batches: batches that the closed-form compensation is fitted on.
        steps: of fine-tuning.
        learning_rate: of Adam at the first step; it falls linearly to zero.
        mixtures: mixtures of held-out utterances that the networks are tested on.
        timing_s: how long each network and the dense one beside it are timed, in seconds.
    """

    seconds: float = 2.0
    batch: int = 4
    batches: int = 100
    compensation_batches: int = 8
    steps: int = 150
    learning_rate: float = 1e-3
    mixtures: int = 100
    timing_s: float = 3.0

    def __post_init__(self) -> None:
        wrong = [f"{name}={value}" for name, value in asdict(self).items() if not value > 0]
        if wrong or self.mixtures < 2:
            raise InputError(f"efforts must be positive, and mixtures at least 2; got {', '.join(wrong) or 'fewer'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A network of the study.

    Attributes:
        name: in tables.
        open: makes the trained network and an example input, the same ones each time; in several processes, if it can
            be pickled.
    """

    name: str
    open: Callable[[], tuple[nn.Module, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination.

    Attributes:
        network: name of the network.
        criterion: name of an installed criterion, or ``dense`` or ``scratch``.
        budget: MACs that may stay, as a share of the dense network's.
        seed: of the criterion, and of the mixtures that it and the fine-tuning see.
    """

    network: str
    criterion: str
    budget: float
    seed: int

    @property
    def key(self) -> str:
        """What identifies the cell, also as the name of a file."""
        return "--".join(quote(str(part), safe="") for part in (self.network, self.criterion, self.budget, self.seed))

    def __str__(self) -> str:
        return f"{self.network}, {self.criterion}, {self.budget:.0%} of the MACs, seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Networks, criteria, budgets and seeds, and under which conditions they are measured.

    Attributes:
        entrants: the networks.
        speech: opens the speech; tested is on utterances that are never trained on.
        criteria: names of criteria; ``random`` is always among the cells.
        budgets: shares of the MACs that may stay.
        seeds: at least one.
        effort: how much work goes into each cell.
        recoveries: how quality is brought back, each measured.
        device: on which everything runs.
        threads: of torch on the CPU, in each process.
    """

    entrants: tuple[Entrant, ...]
    speech: Callable[[], Speech]
    criteria: tuple[str, ...]
    budgets: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    effort: Effort = Effort()
    recoveries: tuple[Recovery, ...] = RECOVERIES
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("entrants", "criteria", "budgets", "seeds"):
            if not getattr(self, name):
                raise InputError(f"a study needs {name}: give at least one")
        taken = {DENSE, SCRATCH} & set(self.criteria)
        if taken:
            raise InputError(f"{min(taken)!r} is the name of a control, which every study has: leave it out")
        outside = [budget for budget in self.budgets if not 0 < budget < 1]
        if outside:
            raise InputError(f"the budget {outside[0]} is no share of the MACs: give numbers between 0 and 1, as 0.5")
        names = [entrant.name for entrant in self.entrants]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"two networks are named {twice[0]!r}: give them names, as in first=nets.py:separator")

    @property
    def tunes(self) -> bool:
        """Whether anything is trained."""
        return bool({"tuned", "both"} & set(self.recoveries))

    def cells(self) -> tuple[Cell, ...]:
        """All combinations and the controls, first those of the first seed; ``scratch`` if anything is trained."""
        names = [entrant.name for entrant in self.entrants]
        contestants = [*dict.fromkeys((*self.criteria, RANDOM)), *([SCRATCH] if self.tunes else [])]
        dense = [Cell(network=name, criterion=DENSE, budget=1.0, seed=0) for name in names]
        pruned = [
            Cell(network=name, criterion=criterion, budget=budget, seed=seed)
            for seed, name, budget, criterion in product(self.seeds, names, self.budgets, contestants)
        ]
        return (*dense, *pruned)

    def conditions(self) -> Mapping[str, str | int | float]:
        """All that decides the result of a cell beside the networks' weights and the speech, by name."""
        return {
            **asdict(self.effort),
            "recoveries": ", ".join(self.recoveries),
            "device": self.device,
            "threads": self.threads,
            "torch": torch.__version__,
            "prunegraph": version("prunegraph"),
        }
