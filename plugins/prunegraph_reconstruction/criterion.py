"""The criterion ``reconstruction``: the order in which a group's channels can be removed at the least cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunegraph.plugin import CriterionContext, GraphView, LayerMoments, Need, NetworkScores
from prunegraph_magnitude.relative import log_magnitudes
from prunegraph_reconstruction.removal import removal_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """Ranks the channels of each group by what the layers that read them lose, when all others make up for it.

    From the whole group down, the channels go whose removal adds least to the squared error of the layers that read the
    group, each relative to its output, after the least-squares fit of its remaining weights; see
    `prunegraph_reconstruction.removal`. Ranks are from 0, the first to go, to 1. A group that no such layer reads is
    ranked by the norms of its weights.

    Reference:
        Hassibi et al., Optimal Brain Surgeon and General Network Pruning, ICNN 1993, section 3, for channels instead of
        single weights; Frantar and Alistarh, Optimal Brain Compression, NeurIPS 2022, section 4.
    """

    name: str = "reconstruction"
    needs: frozenset[Need] = frozenset({"data", "moments"})

    def supports(self, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
        """Serves every request."""
        return ()

    def score(self, graph: GraphView, weights: Mapping[str, Tensor], context: CriterionContext) -> Mapping[str, Tensor]:
        """Ranks of shape ``(width,)`` per group, compared over groups as they are: all lose the same share."""
        assert context.moments is not None
        return NetworkScores(removal_ranks(graph, weights, context.moments))


def removal_ranks(graph: GraphView, weights: Mapping[str, Tensor], layers: Iterable[LayerMoments]) -> dict[str, Tensor]:
    """Group name -> ranks from 0, the first channel to go, to 1, shape ``(width,)``."""
    readers: dict[str, list[LayerMoments]] = {}
    for layer in layers:
        for name in layer.features:
            readers.setdefault(name, []).append(layer)
    others = log_magnitudes(graph, weights)
    return {
        group.name: _ranks(
            removal_order(group, readers[group.name]) if group.name in readers else others[group.name].argsort(),
            others[group.name].device,
        )
        for group in graph.groups
    }


def _ranks(order: Tensor, device: torch.device) -> Tensor:
    ranks = torch.empty(len(order), device=device)
    ranks[order.to(device)] = torch.linspace(0, 1, len(order), device=device)
    return ranks
