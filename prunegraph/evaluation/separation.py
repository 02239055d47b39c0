"""`evaluate`: the scores of a separator on each of many mixtures, and their means."""

import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

import torch
from torch import Tensor, nn

from prunegraph.data.mixtures import Mixture
from prunegraph.errors import DataError, InputError
from prunegraph.evaluation.intervals import MeanInterval, mean_interval
from prunegraph.evaluation.metrics import METRICS, Measure
from prunegraph.recovery.losses import best_permutation, pairwise_si_sdr


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureScores:
    """The scores of one mixture, each the mean over its speakers.

    Attributes:
        name: of the mixture; its number where it has none.
        seconds: its duration.
        values: score by name: ``si_sdr`` and the improvement ``si_sdri``, ``pesq``, ...; NaN if it is not defined.
    """

    name: str
    seconds: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How well a network separates.

    Attributes:
        scores: one for each mixture.
        means: score by name -> mean over mixtures with its 95 % confidence interval (Student's t).
    """

    scores: tuple[MixtureScores, ...]
    means: Mapping[str, MeanInterval]

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a row for each mixture: name, seconds and scores; a score that is not defined is left empty.

        Raises:
            OSError: the file cannot be written; an earlier one is left as it was.
        """
        target = Path(path)
        partial = target.with_name(f".{target.name}.{uuid4().hex[:8]}.partial")
        try:
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["mixture", "seconds", *self.means])
                for row in self.scores:
                    values = ("" if math.isnan(value) else f"{value:.6g}" for value in row.values.values())
                    writer.writerow([row.name, f"{row.seconds:.6g}", *values])
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def evaluate(
    network: nn.Module,
    mixtures: Sequence[Mixture],
    sample_rate: int,
    *,
    metrics: Sequence[str] = ("si_sdr", "sdr"),
    input_dims: Literal[2, 3] = 3,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> Evaluation:
    """Separates every mixture in evaluation mode and scores the estimates.

    Estimates are assigned to speakers so that the mean SI-SDR is highest, for all metrics alike. An improvement is
    the score of the estimate less that of the mixture taken as the estimate.

    Args:
        network: takes ``(1, 1, time)`` to ``(1, speakers, time)``, further dimensions of size 1 allowed; its training
            flags are left as they were.
        mixtures: at least two; read one by one.
        sample_rate: of the mixtures in Hz.
        metrics: names of `prunegraph.evaluation.metrics.METRICS`.
        input_dims: 2 for a network that takes ``(1, time)``.
        progress: called after each mixture with the number of finished ones and of all.

    Raises:
        InputError: there are fewer than two mixtures, a metric is unknown or not defined at the sample rate, or the
            network fails or returns something else than finite estimates of the sources' shape; names the mixture.
        DataError: a file is bad, or a source is silent.
        MissingPackageError: the package of a metric is not installed.
    """
    if len(mixtures) < 2:
        raise InputError(f"An interval needs at least 2 mixtures, got {len(mixtures)}.")
    measures = {name: _metric(name, sample_rate) for name in metrics}
    scores = []
    with evaluating(network), torch.inference_mode():
        for number, mixture in enumerate(mixtures):
            name = mixture.name or str(number)
            values = _scores(network, mixture, name, measures, input_dims)
            scores.append(MixtureScores(name=name, seconds=mixture.mixture.numel() / sample_rate, values=values))
            progress(number + 1, len(mixtures))
    means = {name: mean_interval([row.values[name] for row in scores]) for name in scores[0].values}
    return Evaluation(scores=tuple(scores), means=means)


def _metric(name: str, sample_rate: int) -> Measure:
    if name not in METRICS:
        raise InputError(f"No metric is named {name!r}; there are {', '.join(METRICS)}.")
    return METRICS[name].make(sample_rate)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module has the mode that it had."""
    flags = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


def _scores(
    network: nn.Module, mixture: Mixture, name: str, measures: Mapping[str, Measure], input_dims: int
) -> Mapping[str, float]:
    weight = next(network.parameters(), torch.empty(0))
    if not mixture.sources.any(dim=-1).all():
        raise DataError(f"A source of mixture {name} is silent, so that no ratio to it is defined; leave it out.")
    signal = mixture.mixture.to(weight.device)
    output = _output(network, signal.to(weight.dtype).reshape((1,) * (input_dims - 1) + signal.shape), name)
    sources = mixture.sources.to(weight.device).double()
    estimates = _checked(output, sources, name).double()
    order = best_permutation(pairwise_si_sdr(estimates[None], sources[None]))[1][0]
    values: dict[str, float] = {}
    for metric, measure in measures.items():
        values[metric] = float(measure(estimates[order], sources).mean())
        if METRICS[metric].is_ratio:
            unprocessed = measure(signal.double().expand_as(sources), sources)
            values[f"{metric}i"] = values[metric] - float(unprocessed.mean())
    return values


def _output(network: nn.Module, signal: Tensor, name: str) -> object:
    try:
        return network(signal)
    except Exception as error:  # the user's code may raise anything
        shape = tuple(signal.shape)
        raise InputError(f"The network failed on mixture {name} {shape}: {type(error).__name__}: {error}") from error


def _checked(output: object, sources: Tensor, name: str) -> Tensor:
    """The estimates ``(speakers, time)``."""
    if not isinstance(output, Tensor):
        raise InputError(f"The network returned {type(output).__name__}; expected a tensor (1, speakers, time).")
    if [size for size in output.shape if size != 1] != list(sources.shape):
        raise InputError(
            f"The network returned the shape {tuple(output.shape)} for mixture {name}, expected is "
            f"{(1, *sources.shape)}: as many speakers and samples as the sources have."
        )
    estimates = output.reshape(sources.shape)
    if not torch.isfinite(estimates).all():
        raise InputError(f"The network returned NaN or infinite samples for mixture {name}.")
    return estimates
