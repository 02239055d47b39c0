"""`score`: runs an importance criterion on the channel groups of a network."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunegraph.capture.state import seeded
from prunegraph.errors import CriterionError, InputError
from prunegraph.graph import DependencyGraph
from prunegraph.importance.gradients import BatchGradients
from prunegraph.importance.moments import InputMoments
from prunegraph.ir.budget import Budget
from prunegraph.masked.program import MaskedNetwork, MaskedProgram
from prunegraph.plugin.contracts import Criterion, CriterionContext, Progress, fault_of, run_criterion
from prunegraph.plugin.contracts import MaskedProgram as MaskedProgramContract
from prunegraph.plugin.manager import find_criterion


def as_criterion(criterion: str | Criterion) -> Criterion:
    """The installed criterion of that name, or the given one.

    Raises:
        CriterionError: there is none of that name, or something else was given.
    """
    if isinstance(criterion, str):
        return find_criterion(criterion)
    fault = fault_of(criterion)
    if fault:
        raise CriterionError(f"expected a criterion or the name of one, such as 'l1'; {criterion!r} {fault}")
    return criterion


def score(
    graph: DependencyGraph,
    criterion: str | Criterion = "l1",
    *,
    seed: int = 0,
    data: Iterable[tuple[Any, Any]] | None = None,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    budget: Budget | None = None,
    masked_program: MaskedProgramContract | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Mapping[str, torch.Tensor]:
    """One number per channel of every group; channels with greater numbers are kept longer.

    Args:
        graph: the network's dependency graph.
        criterion: name of an installed criterion, or a criterion.
        seed: the only source of randomness.
        data: batches ``(inputs, targets)`` for criteria that look at data, on the network's device.
        loss: ``loss(output, targets)`` for criteria that look at a loss.
        budget: what is going to stay, for criteria that look at the choice as a whole.
        masked_program: for criteria that learn on it; by default that of the graph, for inputs of its example's shape.
            With a `MaskedNetwork` inputs may have any shape, also for criteria that look at gradients or moments.
        progress: told of the state of a scoring that takes long.
        checkpoint: file from which an interrupted scoring goes on.

    Returns:
        Group name -> scores of shape ``(width,)``.

    Raises:
        InputError: the data or the loss do not fit the network; names the batch.
        CriterionError: no installed criterion has that name, the criterion cannot serve the request,
            the weights are not finite, or it returned something else than scores.
    """
    chosen = as_criterion(criterion)
    _check_request(seed, data, loss)
    parameters = {s.name: graph.weights[s.name] for s in graph.trace.tensors.values() if s.is_parameter}
    if masked_program is None and "masked_program" in chosen.needs:
        masked_program = MaskedProgram(graph)
    graph_of = masked_program.graph_of if isinstance(masked_program, MaskedNetwork) else None
    context = CriterionContext(
        seed=seed,
        gradients=None
        if data is None or loss is None
        else BatchGradients(graph=graph, data=data, loss=loss, graph_of=graph_of),
        moments=None if data is None else InputMoments(graph=graph, data=data, graph_of=graph_of),
        data=data,
        loss=loss,
        masked_program=masked_program,
        budget=budget,
        progress=progress,
        checkpoint=checkpoint,
    )
    with seeded(seed, parameters.values()):  # loaders that shuffle, losses and networks may draw
        return run_criterion(chosen, graph, parameters, context)


def _check_request(seed: Any, data: Any, loss: Any) -> None:
    if not isinstance(seed, Integral) or not 0 <= int(seed) < 2**63:
        raise InputError(f"seed={seed!r} must be a whole number from 0 to below 2**63")
    if data is not None and not isinstance(data, Iterable):
        raise InputError(f"data={data!r} must be batches (inputs, targets), such as a list or a DataLoader")
    if loss is not None and not callable(loss):
        raise InputError(f"loss={loss!r} must be a function loss(output, targets) that returns a scalar tensor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What `prunegraph.score` is to be called with."""

    criterion: Criterion
    data: Iterable[tuple[Any, Any]] | None = None
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    seed: int = 0
    progress: Progress | None = None
    checkpoint: Path | None = None

    def __call__(self, graph: DependencyGraph, model: nn.Module, budget: Budget) -> Mapping[str, torch.Tensor]:
        """Scores the graph's groups, on data of any shape that the model takes."""
        runs_it = bool(self.criterion.needs & {"masked_program", "moments", "gradients"})
        return score(
            graph,
            self.criterion,
            seed=self.seed,
            data=self.data,
            loss=self.loss,
            budget=budget,
            masked_program=MaskedNetwork(model, graph) if runs_it else None,
            progress=self.progress,
            checkpoint=self.checkpoint,
        )
