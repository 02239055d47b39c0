"""`score`: runs an importance criterion on the channel groups of a network."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from prunegraph.errors import CriterionError
from prunegraph.graph import DependencyGraph
from prunegraph.plugin.contracts import Criterion, CriterionContext, run_criterion
from prunegraph.plugin.manager import find_criterion


def as_criterion(criterion: str | Criterion) -> Criterion:
    """The installed criterion of that name, or the given one.

    Raises:
        CriterionError: there is none of that name, or something else was given.
    """
    if isinstance(criterion, str):
        return find_criterion(criterion)
    if isinstance(criterion, type) or not isinstance(criterion, Criterion):
        raise CriterionError(f"expected a criterion or the name of one, such as 'l1', got {criterion!r}")
    return criterion


def score(
    graph: DependencyGraph,
    criterion: str | Criterion = "l1",
    *,
    seed: int = 0,
    data: Iterable[tuple[Any, Any]] | None = None,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
) -> Mapping[str, torch.Tensor]:
    """One number per channel of every group; channels with greater numbers are kept longer.

    Args:
        graph: the network's dependency graph.
        criterion: name of an installed criterion, or a criterion.
        seed: the only source of randomness.
        data: batches ``(inputs, targets)`` for criteria that look at data.
        loss: ``loss(output, targets)`` for criteria that look at a loss.

    Returns:
        Group name -> scores of shape ``(width,)``.

    Raises:
        CriterionError: no installed criterion has that name, the criterion cannot serve the request,
            the weights are not finite, or it returned something else than scores.
    """
    chosen = as_criterion(criterion)
    parameters = {s.name: graph.weights[s.name] for s in graph.trace.tensors.values() if s.is_parameter}
    return run_criterion(chosen, graph, parameters, CriterionContext(seed=seed, data=data, loss=loss))
