"""Any importance of torch-pruning as a criterion."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch_pruning import importance as tp

from prunegraph.errors import CriterionError
from prunegraph.ir.channels import ChannelGroup
from prunegraph.plugin import CriterionContext, GraphView, Need, NetworkScores
from prunegraph_torch_pruning.groups import as_group
from prunegraph_torch_pruning.layers import Layers

_WITH_GRADIENTS = (tp.GroupTaylorImportance, tp.GroupHessianImportance)
_WITH_HOOKS = (tp.ActivationImportance, tp.OBDCImportance)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchPruning:
    """Scores by an importance of torch-pruning, on the channels that prunegraph found.

    The importance is given a group of torch-pruning's own kind with stand-ins for the network's layers, which share
    their weights: convolutions, linear maps, norms and PReLUs as they are, and every other matrix (recurrent gates,
    attention, a network's own parameters) as a linear map. Importances that look at gradients find their mean over the
    batches, those that accumulate squared gradients (Hessian) get them batch by batch. Scores are compared over the
    whole network, as they are by torch-pruning's global pruning. Groups that the importance has no number for, which
    torch-pruning would leave whole, score above all others.

    Attributes:
        name: what users ask for.
        importance: an object of one of the classes in ``torch_pruning.importance``, or of one derived from them.

    Reference:
        Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023; https://github.com/VainF/Torch-Pruning.
    """

    name: str
    importance: Any

    @property
    def needs(self) -> frozenset[Need]:
        """Gradients where the importance looks at them."""
        return frozenset({"gradients"}) if isinstance(self.importance, _WITH_GRADIENTS) else frozenset()

    def supports(self, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
        """Refuses what is no importance, and importances that hook into running modules."""
        kind = type(self.importance).__name__
        if not isinstance(self.importance, tp.Importance):
            return (f"expected an object of a class in torch_pruning.importance, got {self.importance!r}",)
        if isinstance(self.importance, _WITH_HOOKS):
            return (f"{kind} observes activations through hooks on running modules, which a recorded network lacks",)
        return ()

    def score(
        self, graph: GraphView, weights: Mapping[str, torch.Tensor], context: CriterionContext
    ) -> Mapping[str, torch.Tensor]:
        """Scores of shape ``(width,)`` per group.

        Raises:
            CriterionError: the importance has no number for any group, or one that fits no group.
        """
        importance = copy.deepcopy(self.importance)  # some keep state
        layers = Layers(graph, weights)
        groups = {group: as_group(group, layers) for group in graph.groups}
        if "gradients" in self.needs:
            layers.give_gradients(context.gradients or (), getattr(importance, "accumulate_grad", None))
        devices = sorted({weight.device.index or 0 for weight in weights.values() if weight.is_cuda})
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(context.seed)
            found = {group: self._run(importance, made, group) for group, made in groups.items()}
        return self._filled(found, weights)

    def _run(self, importance: Any, made: torch_pruning.Group, group: ChannelGroup) -> torch.Tensor | None:
        try:
            score: torch.Tensor | None = importance(made) if len(made) else None
        except Exception as error:
            raise CriterionError(
                f"{type(importance).__name__} failed on group {group.name!r}: {type(error).__name__}: {error}"
            ) from error
        if score is not None and score.shape != (group.width,):
            raise CriterionError(
                f"{type(self.importance).__name__} gave shape {tuple(score.shape)} for the {group.width} channels of "
                f"group {group.name!r}; choose a reduction and a normalizer that give one number per channel"
            )
        return score

    def _filled(
        self, found: Mapping[ChannelGroup, torch.Tensor | None], weights: Mapping[str, torch.Tensor]
    ) -> NetworkScores:
        scored = [score for score in found.values() if score is not None]
        if found and not scored:
            raise CriterionError(
                f"{type(self.importance).__name__} has no number for any group of this network: it looks at "
                "other kinds of layers, see its target_types"
            )
        best = max((float(score.max()) for score in scored), default=0.0)
        return NetworkScores(
            {
                group.name: (torch.full((group.width,), best + 1) if score is None else score).to(
                    _device(group, weights)
                )
                for group, score in found.items()
            }
        )


def _device(group: ChannelGroup, weights: Mapping[str, torch.Tensor]) -> torch.device:
    devices: Sequence[torch.device] = [weights[m.tensor].device for m in group.members if m.tensor in weights]
    return devices[0] if devices else torch.device("cpu")
