"""The criterion ``sepprune``: settings, candidate groups, and scores from what was learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from prunegraph.errors import BudgetError
from prunegraph.plugin import CriterionContext, GraphView, Need, NetworkScores
from prunegraph.selection.selector import prunable_groups
from prunegraph_magnitude.relative import log_magnitudes
from prunegraph_reconstruction import removal_scores
from prunegraph_sepprune.candidates import candidate_groups, widths_left
from prunegraph_sepprune.learning import LearningSettings, MaskLearner, learn_logits
from prunegraph_sepprune.masks import GUMBEL_MEDIAN, BudgetMasks, ThresholdMasks

Mode = Literal["budget", "epsilon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SepPrune:
    """Masks learned with the weights frozen, on the exact masked program.

    Every candidate channel has a logit, which noise and a threshold turn into its keep value; see `BudgetMasks` and,
    for the paper's own rule, `ThresholdMasks`. Scores are a deterministic function of what was learned.

    Attributes:
        mode: ``budget``: as many channels of each candidate group stay as by the criterion ``reconstruction``, and the
            sampled masks meet the budget; the channel of the n-th logit in its group has the n-th of its scores.
            ``epsilon``: one threshold for all; a channel's score is its logit less the logit at which it is kept in
            half of the samples, and `Budget(threshold=0)` keeps what that says.
        epsilon: the threshold in ``epsilon`` mode; a larger one keeps fewer channels.
        candidate_share: in ``budget`` mode, groups are candidates from the most expensive one down until removing them
            would save this share of all MACs that can be saved; the others stay whole.
        learning: steps, rates and noise.

    Reference:
        SepPrune: Structured Pruning for Efficient Deep Speech Separation, arXiv 2505.12079, sections 3.2 and 3.3.
    """

    mode: Mode = "budget"
    epsilon: float = 0.7
    candidate_share: float = 0.99
    learning: LearningSettings = field(default_factory=LearningSettings)

    @property
    def name(self) -> str:
        """``sepprune`` or ``sepprune-epsilon``."""
        return "sepprune" if self.mode == "budget" else "sepprune-epsilon"

    @property
    def needs(self) -> frozenset[Need]:
        """Data, a loss and the masked program; in ``budget`` mode the budget, and what layers read."""
        needed: frozenset[Need] = frozenset({"data", "loss", "masked_program"})
        return needed | {"budget", "moments"} if self.mode == "budget" else needed

    def supports(self, graph: GraphView, context: CriterionContext) -> tuple[str, ...]:
        """Serves every request with something to prune."""
        return () if graph.groups else ("the network has no channel group that can be pruned",)

    def score(
        self, graph: GraphView, weights: Mapping[str, torch.Tensor], context: CriterionContext
    ) -> Mapping[str, torch.Tensor]:
        """What was learned, shape ``(width,)`` per group; groups that are no candidates score above all others.

        Raises:
            BudgetError: the budget cannot be met.
            CriterionError: the data ended at once, or the loss is not finite.
        """
        prior = self._prior(graph, weights, context)
        learner = self.learner(graph, context, prior)
        learn_logits(learner, context, self.learning, weights)
        learned = {name: self._scores(logits, prior[name]) for name, logits in learner.logits().items()}
        best = max((float(scores.max()) for scores in learned.values()), default=0.0)
        whole = {name: torch.full_like(scores, max(best, 0.0) + 1.0) for name, scores in prior.items()}
        return NetworkScores(whole | learned)

    def _prior(
        self, graph: GraphView, weights: Mapping[str, torch.Tensor], context: CriterionContext
    ) -> Mapping[str, torch.Tensor]:
        if self.mode == "budget":
            assert context.moments is not None
            return removal_scores(graph, weights, context.moments)
        return log_magnitudes(graph, weights)

    def _scores(self, logits: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        if self.mode == "budget":  # masks decide which channels stay; how many, the prior
            return torch.empty_like(prior).index_copy_(0, logits.argsort(stable=True), prior.sort().values)
        return logits - (ThresholdMasks(self.epsilon).threshold - GUMBEL_MEDIAN)

    def learner(self, graph: GraphView, context: CriterionContext, prior: Mapping[str, torch.Tensor]) -> MaskLearner:
        """The learner with its candidates and the kind of masks that the mode asks for."""
        everything = frozenset(group.name for group in graph.groups)
        allowed = everything if context.budget is None else prunable_groups(graph, context.budget)
        if context.budget is None or self.mode == "epsilon":
            return MaskLearner(graph, context, allowed, ThresholdMasks(self.epsilon), self.learning, prior)
        names = candidate_groups(graph, context.budget, self.candidate_share)
        try:
            staying = widths_left(graph, context.budget, names, prior)
        except BudgetError:  # the candidates alone cannot save that much
            names, staying = allowed, widths_left(graph, context.budget, allowed, prior)
        masks = BudgetMasks([group.width for group in graph.groups], staying, boldness(graph, staying))
        return MaskLearner(graph, context, names, masks, self.learning, prior)


def boldness(graph: GraphView, staying: Sequence[int]) -> float:
    """A fifth at half of the MACs, and with the square of what goes: a prior is right the more, the less has to go."""
    kept = np.concatenate([np.arange(g.width) < count for g, count in zip(graph.groups, staying, strict=True)])
    share = graph.macs_and_parameters(kept)[0] / graph.macs_and_parameters(np.ones_like(kept))[0]
    return 0.8 * (1 - share) ** 2
