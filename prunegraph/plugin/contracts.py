"""What a plug-in provides: the contract of a criterion, and the one way in which the host runs it."""

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from prunegraph.errors import CriterionError, PrunegraphError
from prunegraph.ir.budget import Budget
from prunegraph.ir.channels import ChannelGroup, LockedGroup
from prunegraph.ir.cost import Cost
from prunegraph.ir.plan import PruningPlan
from prunegraph.ir.trace import ModuleSpec

Need: TypeAlias = Literal["gradients", "moments", "data", "loss", "masked_program", "budget"]
"""What a criterion may ask for beside the weights; the name of a field of `CriterionContext`."""

NEEDS: frozenset[str] = frozenset(get_args(Need))

_MENDS: Mapping[str, str] = {"gradients": "gradients: give data and a loss", "moments": "moments: give data"}


Progress: TypeAlias = Callable[[int, int, Mapping[str, float]], None]
"""Is called with the number of the step, the number of all steps, and named figures such as the loss."""


class GraphView(Protocol):
    """What a criterion sees of a `prunegraph.DependencyGraph`."""

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The channel groups that can be pruned."""

    @property
    def locked(self) -> tuple[LockedGroup, ...]:
        """Coupled channels that must stay, and why."""

    @property
    def modules(self) -> Mapping[str, ModuleSpec]:
        """Every module of the network by path: the class behind a tensor's name."""

    @property
    def coverage(self) -> float:
        """Share of the parameter elements that lie in a tensor with at least one prunable dimension."""

    def plan(self, kept: Mapping[str, Iterable[int]]) -> PruningPlan:
        """The plan that keeps the given channels; groups that are not named stay whole."""

    def cost(self, plan: PruningPlan | None = None) -> Cost:
        """MACs, parameters and activation memory, dense or under a plan."""

    def macs_and_parameters(self, kept: NDArray[np.bool_]) -> tuple[float, float]:
        """The two costs when channel i stays where ``kept[i]``, counted over all groups in their order; quick."""


class MaskedProgram(Protocol):
    """The pruned network as a differentiable function of keep values (design: the exact masked program)."""

    def __call__(self, masks: Mapping[str, torch.Tensor], /, *inputs: Any) -> Any:
        """Computes the network's output with keep values in [0, 1], one of shape ``(width,)`` per group name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerMoments:
    r"""What a layer that is linear in its weight reads, on average over data: $y = C^T x$ for each of its blocks.

    Blocks are the groups of a grouped convolution; the phases of a transposed one, which read the same but for the ends
    of the signal, are one block with the outputs of all.

    Attributes:
        weight: name of the weight, or of the value that is computed from parameters.
        moments: mean of $x x^T$, in float64, shape ``(blocks, features, features)``; of $x$ less its mean where the
            layer has a bias, which can make up for that.
        coefficients: $C$, in float64, shape ``(blocks, features, outputs)``.
        effects: $C R$, of the same shape, with $R R^T$ the second moments of the derivatives of the network's output by
            the layer's: with other coefficients $C'$, and $E$ standing to $C'$ as the effects to $C$, the squared
            change of the network's output is about $|(effects - E)^T x|^2$, comparable over layers.
        features: group name -> features by which each of its channels is read, the same in all blocks, shape
            ``(width, features per channel)``; for the groups that are read here.
    """

    weight: str
    moments: torch.Tensor
    coefficients: torch.Tensor
    effects: torch.Tensor
    features: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionContext:
    """All that a criterion may look at beside graph and weights; what nobody provided is None.

    Attributes:
        seed: the only source of randomness.
        gradients: for each batch of ``data`` parameter name -> derivative of the batch's loss; computed while they are
            gone through, so that only one batch's are held at a time.
        moments: what each layer that reads a group reads over the first batches of ``data``; computed, all together,
            when they are gone through.
        data: batches ``(inputs, targets)``; can be gone through more than once.
        loss: ``loss(output, targets)``, a scalar tensor; less is better.
        masked_program: the network as a function of masks.
        budget: what is going to stay, for criteria that look at the choice as a whole.
        progress: told of a long scoring's state: number of the step, number of all steps, named figures.
        checkpoint: file from which an interrupted scoring goes on, and to which it writes; None for neither.
    """

    seed: int = 0
    gradients: Iterable[Mapping[str, torch.Tensor]] | None = None
    moments: Iterable[LayerMoments] | None = None
    data: Iterable[tuple[Any, Any]] | None = None
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    masked_program: MaskedProgram | None = None
    budget: Budget | None = None
    progress: Progress | None = None
    checkpoint: Path | None = None


class NetworkScores(dict[str, torch.Tensor]):
    """Scores of one scale over the whole network: they are compared over groups as they are.

    All other scores are compared within their group, and over groups relative to the group's mean.
    """


@runtime_checkable
class Criterion(Protocol):
    """Tells how important each channel is; nothing has to be inherited.

    A criterion holds no state that changes: the same arguments give the same scores.
    """

    @property
    def name(self) -> str:
        """The name users ask for; unique among all installed plug-ins."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the context must hold; the host refuses the request when it does not."""

    def supports(self, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
        """Reasons why this criterion cannot serve the request; empty when it can.

        Called before any work starts, so it must be quick and must not touch tensors.
        """

    def score(
        self, graph: GraphView, weights: Mapping[str, torch.Tensor], context: CriterionContext
    ) -> Mapping[str, torch.Tensor]:
        """Scores every channel of every group; a greater number is kept longer.

        Args:
            graph: the groups to score.
            weights: parameter name -> detached tensor on its own device, without NaN or infinite values; buffers are
                not among them. Read only.
            context: what else was provided.

        Returns:
            group name -> finite real tensor of shape ``(width,)``, on the device of the group's weights.

        Raises:
            CriterionError: the numbers do not allow scores; names the tensor.
        """


def run_criterion(
    criterion: Criterion,
    graph: GraphView,
    weights: Mapping[str, torch.Tensor],
    context: CriterionContext,
) -> Mapping[str, torch.Tensor]:
    """Runs a criterion under its contract: needs met, request supported, weights finite, one finite score per channel.

    Args:
        criterion: what to run.
        graph: the groups to score.
        weights: parameter name -> detached tensor.
        context: what the criterion may look at beside the weights.

    Returns:
        group name -> scores of shape ``(width,)``.

    Raises:
        CriterionError: the criterion cannot serve the request, or broke the contract; names the criterion. Also
            when a weight is NaN or infinite; names the tensor.
    """
    reasons = refusals(criterion, graph, context) or _not_finite(weights)
    if reasons:
        raise CriterionError(f"criterion {criterion.name!r} cannot serve this request: {'; '.join(reasons)}")
    before = _checksums(weights)
    try:
        scores = criterion.score(graph, weights, context)
    except PrunegraphError:
        raise
    except Exception as error:
        raise CriterionError(
            f"criterion {criterion.name!r} failed: {type(error).__name__}: {error}{_where(error)}"
        ) from error
    changed = [name for name, checksum in _checksums(weights).items() if checksum != before[name]]
    if changed:
        raise CriterionError(
            f"criterion {criterion.name!r} overwrote weights of the network, {changed[0]!r} first: load them again, "
            "and let it work on copies"
        )
    broken = faults(graph, scores)
    if broken:
        raise CriterionError(f"criterion {criterion.name!r} returned wrong scores: {'; '.join(broken)}")
    return scores


def fault_of(criterion: object) -> str | None:
    """Why something is no criterion; None if it is one."""
    if isinstance(criterion, type):
        return "is a class; expected an object of it"
    try:
        if not isinstance(criterion, Criterion):
            return "lacks name, needs, supports() or score(): see prunegraph.plugin.Criterion"
        name, needs = criterion.name, criterion.needs
    except Exception as error:
        return f"fails when asked for name and needs: {type(error).__name__}: {error}{_where(error)}"
    if not name or not isinstance(name, str):
        return f"is named {name!r}; give it a word"
    if not isinstance(needs, frozenset | set):
        return f"needs {needs!r}; give a frozenset, an empty one if weights are enough"
    unknown = sorted(map(repr, needs - NEEDS))
    return f"needs {', '.join(unknown)}; what can be asked for: {', '.join(sorted(NEEDS))}" if unknown else None


def refusals(criterion: Criterion, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
    """Why the criterion cannot serve the request: what it needs and was not given, then its own reasons."""
    missing = tuple(
        f"it needs {_MENDS.get(need, need)}" for need in sorted(criterion.needs) if getattr(context, need) is None
    )
    if missing:
        return missing
    try:
        reasons = criterion.supports(graph, context)
    except Exception as error:
        raise CriterionError(
            f"supports() of criterion {criterion.name!r} failed: {type(error).__name__}: {error}{_where(error)}"
        ) from error
    if not isinstance(reasons, tuple | list) or not all(isinstance(reason, str) for reason in reasons):
        raise CriterionError(
            f"criterion {criterion.name!r}: supports() returned {reasons!r}; it must return a tuple of reasons, empty "
            "when the criterion can serve the request"
        )
    return tuple(reasons)


def faults(graph: GraphView, scores: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """What is wrong with the scores: groups left out or made up, wrong lengths, values that are not finite."""
    if not isinstance(scores, Mapping):
        return (f"expected a dict from group names to tensors, got {type(scores).__name__}",)
    widths = {group.name: group.width for group in graph.groups}
    absent = [f"no scores for group {name!r}" for name in widths if name not in scores]
    unknown = [f"scores for {name!r}, which is no group" for name in scores if name not in widths]
    wrong = [
        f"group {name!r}: {fault}"
        for name, width in widths.items()
        if name in scores and (fault := _fault(scores[name], width))
    ]
    return (*absent, *unknown, *wrong)


def _where(error: BaseException) -> str:
    """The innermost line."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno})"


def _not_finite(weights: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    names = [name for name, weight in weights.items() if not _is_finite(weight)]
    mend = "repair the checkpoint or train again"
    return (f"NaN or infinite values in weight {', '.join(map(repr, names))}; {mend}",) if names else ()


def _checksums(weights: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
    """Version and sum of each tensor: writes through ``.data`` or numpy make no new version, but another sum."""
    return {name: (None if w.is_inference() else w._version, w.sum().item()) for name, w in weights.items()}


def _is_finite(weight: torch.Tensor) -> bool:
    """A sum is quick and tells, unless it overflows: what is not finite stays so."""
    return bool(weight.sum().isfinite()) or bool(weight.isfinite().all())


def _fault(score: torch.Tensor, width: int) -> str | None:
    if not isinstance(score, torch.Tensor) or score.is_complex() or score.dtype == torch.bool:
        return f"expected a tensor of real numbers, got {getattr(score, 'dtype', type(score).__name__)}"
    if score.is_meta or score.layout != torch.strided:
        return "expected a dense tensor with values, got one that is " + ("meta" if score.is_meta else "sparse")
    if score.shape != (width,):
        return f"expected shape ({width},), one score per channel, got {tuple(score.shape)}"
    finite = torch.isfinite(score)
    return None if bool(finite.all()) else f"channel {int((~finite).nonzero()[0])} is {score[~finite][0].item()}"
