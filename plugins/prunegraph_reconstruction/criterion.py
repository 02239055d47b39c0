"""The criterion ``reconstruction``: the order in which channels can be removed at the least cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunegraph.plugin import CriterionContext, GraphView, LayerMoments, Need, NetworkScores
from prunegraph_magnitude.relative import log_magnitudes
from prunegraph_reconstruction.costs import macs_saved
from prunegraph_reconstruction.removal import removal

_OVER_THE_NETWORK = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """Ranks channels by what the network's output loses without them, when all others make up for it.

    From each whole group down, the channels go whose removal changes the network's output least, after the
    least-squares fit of the remaining weights of the layers that read the group; see
    `prunegraph_reconstruction.removal`. A score is to three quarters the channel's rank in its group, from 0, the first
    to go, to 1, and to one quarter its rank in the whole network by the change per MAC that its removal saves: most of
    what a budget takes is taken from all groups alike, since changes add up in ways that one layer does not tell.
    Groups that no such layer reads are ranked by the norms of their weights.

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
        """Scores from 0 to 1 of shape ``(width,)`` per group, compared over groups as they are."""
        assert context.moments is not None
        return NetworkScores(removal_scores(graph, weights, context.moments))


def removal_scores(
    graph: GraphView, weights: Mapping[str, Tensor], layers: Iterable[LayerMoments]
) -> dict[str, Tensor]:
    """Group name -> scores from 0 to 1, shape ``(width,)``; within a group none are equal."""
    readers: dict[str, list[LayerMoments]] = {}
    for layer in layers:
        for name in layer.features:
            readers.setdefault(name, []).append(layer)
    removals = {group.name: removal(group, readers[group.name]) for group in graph.groups if group.name in readers}
    overall = _network_ranks({name: errors for name, (_, errors) in removals.items()}, macs_saved(graph))
    orders = {name: order for name, (order, _) in removals.items()}
    others = log_magnitudes(graph, weights)
    scores = {}
    for group in graph.groups:
        order = orders[group.name] if group.name in orders else others[group.name].argsort()
        within = torch.linspace(0, 1, group.width, device=order.device)
        along = torch.lerp(within, overall.get(group.name, within), _OVER_THE_NETWORK)
        device = others[group.name].device
        scores[group.name] = torch.empty(group.width, device=device).index_copy_(0, order.to(device), along.to(device))
    return scores


def _network_ranks(errors: Mapping[str, Tensor], saved: Mapping[str, float]) -> dict[str, Tensor]:
    """Group name -> ranks over all groups from 0 to 1, in the order in which its channels go, so that none falls."""
    rising = [torch.cummax(added, 0).values / (max(saved[name], 1e-12) / len(added)) for name, added in errors.items()]
    if not rising:
        return {}
    every = torch.cat(rising).sort().values
    return {
        name: (torch.searchsorted(every, values) / max(len(every) - 1, 1)).float().clamp_max(1)
        for name, values in zip(errors, rising, strict=True)
    }
