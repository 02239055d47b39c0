"""Stage 2: learns one logit per channel on the exact masked program."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunegraph.errors import CriterionError
from prunegraph.plugin import CriterionContext, GraphView
from prunegraph_sepprune.checkpoint import Checkpoint
from prunegraph_sepprune.masks import Masks

REPORT_EVERY, SAVE_EVERY = 10, 50
_BENEFIT_MEMORY = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningSettings:
    """How masks are learned.

    Attributes:
        steps: optimizer steps, one batch each.
        learning_rate: of Adam at the beginning, without weight decay.
    """

    steps: int = 500
    learning_rate: float = 0.1


class MaskLearner:
    """Logits of all channels, their optimizer and their noise.

    Args:
        graph: the groups.
        context: masked program, loss and seed.
        candidates: names of the groups that have masks; the others stay whole.
        masks: where logits start, how keep values are drawn from them, and what keeping a channel costs.
        settings: steps and rates.
        prior: scores of all groups before anything is learned, on the network's device.
    """

    def __init__(
        self,
        graph: GraphView,
        context: CriterionContext,
        candidates: frozenset[str],
        masks: Masks,
        settings: LearningSettings,
        prior: Mapping[str, Tensor],
    ) -> None:
        self._graph, self._context, self._masks, self._settings = graph, context, masks, settings
        self._names, self._widths = [g.name for g in graph.groups], [g.width for g in graph.groups]
        self._candidates = candidates
        learned = np.concatenate([np.full(g.width, g.name in candidates) for g in graph.groups])
        self._noise = torch.Generator().manual_seed(context.seed)
        self._logits = masks.start([prior[name] for name in self._names], self._noise).requires_grad_()
        self._others = torch.from_numpy(~learned).to(self._logits.device)
        self._benefit = torch.zeros_like(self._logits, requires_grad=False)
        self._optimizer = torch.optim.Adam([self._logits], lr=settings.learning_rate)
        # Adam makes its state in the first step; made here, it has names for the checkpoint.
        self._optimizer.state[self._logits] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(self._logits),
            "exp_avg_sq": torch.zeros_like(self._logits),
        }

    def step(self, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Samples masks, and moves the logits down the gradient of the loss.

        Returns:
            The loss and the keep values, shape ``(channels,)``; both on the network's device.
        """
        done = float(self._optimizer.state[self._logits]["step"]) / self._settings.steps
        self._optimizer.param_groups[0]["lr"] = self._settings.learning_rate * self._masks.pace(done)
        keep = self._sample(done)
        keep.retain_grad()
        loss = self._evaluate(dict(zip(self._names, torch.split(keep, self._widths), strict=True)), inputs, targets)
        price = self._masks.price(self._benefit)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss + (price * keep).sum())
        self._optimizer.step()
        assert keep.grad is not None
        self._benefit.lerp_(price - keep.grad, 1 - _BENEFIT_MEMORY)
        return loss.detach(), keep.detach()

    def share_of_macs(self, keep: Tensor) -> float:
        """MACs of the channels that are kept for the greater part, as a share of the network's."""
        kept = (keep > 0.5).cpu().numpy()
        dense, _ = self._graph.macs_and_parameters(np.ones_like(kept))
        return self._graph.macs_and_parameters(kept)[0] / max(dense, 1.0)

    def logits(self) -> dict[str, Tensor]:
        """What was learned: group name -> shape ``(width,)``, for the candidates."""
        parts = dict(zip(self._names, torch.split(self._logits.detach().clone(), self._widths), strict=True))
        return {name: part for name, part in parts.items() if name in self._candidates}

    def state(self) -> dict[str, Tensor]:
        """All that decides the next step, by name."""
        moments = self._optimizer.state[self._logits]
        return {"logits": self._logits.detach(), **moments, "benefit": self._benefit, "noise": self._noise.get_state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes back to a state."""
        self._noise.set_state(state["noise"])
        with torch.no_grad():
            for name, tensor in self.state().items():
                tensor.copy_(state[name])

    def _sample(self, done: float) -> Tensor:
        uniform = torch.rand(len(self._logits), generator=self._noise).clamp_(1e-6, 1 - 1e-6)
        gumbel = -(-uniform.log()).log()
        keep = self._masks.sample(self._logits, gumbel.to(self._logits.device), done)
        return torch.where(self._others, torch.ones_like(keep), keep)

    def _evaluate(self, masks: Mapping[str, Tensor], inputs: Any, targets: Any) -> Tensor:
        loss, program = self._context.loss, self._context.masked_program
        assert loss is not None
        assert program is not None
        if isinstance(inputs, Mapping):
            return loss(program(masks, **inputs), targets)
        return loss(program(masks, *(inputs if isinstance(inputs, tuple | list) else (inputs,))), targets)


def learn_logits(
    learner: MaskLearner, context: CriterionContext, settings: LearningSettings, weights: Mapping[str, Tensor]
) -> None:
    """Runs all steps, or those that an earlier run of the same network left over.

    Raises:
        CriterionError: the data held no batch, the loss is not finite, or the checkpoint belongs to another run.
    """
    checkpoint = Checkpoint(context.checkpoint, _run(context, settings, weights))
    start = checkpoint.restore(learner)
    for step, (inputs, targets) in enumerate(_batches(context.data, start, settings.steps), start + 1):
        loss, keep = learner.step(inputs, targets)
        if step % REPORT_EVERY == 0 or step == settings.steps:
            _report(context, step, settings.steps, {"loss": float(loss), "MACs": learner.share_of_macs(keep)})
        if step % SAVE_EVERY == 0 or step == settings.steps:
            checkpoint.write(step, learner)


def _run(
    context: CriterionContext, settings: LearningSettings, weights: Mapping[str, Tensor]
) -> Mapping[str, str | int | float]:
    """What a checkpoint belongs to; sums to five digits, which do not depend on the number of threads."""
    sums = {name: f"{float(weight.abs().sum(dtype=torch.float64)):.4e}" for name, weight in weights.items()}
    return {**asdict(settings), "seed": context.seed, "budget": str(context.budget), **sums}


def _report(context: CriterionContext, step: int, steps: int, figures: Mapping[str, float]) -> None:
    if not math.isfinite(figures["loss"]):
        raise CriterionError(
            f"the loss is {figures['loss']} at step {step} of learning masks; look at the data and the loss"
        )
    if context.progress:
        context.progress(step, steps, figures)


def _batches(data: Iterable[tuple[Any, Any]] | None, start: int, end: int) -> Iterator[tuple[Any, Any]]:
    """Batches number ``start`` to ``end``, going through the data again and again."""
    number = 0
    while number < end:
        before = number
        for batch in data or ():
            if number >= end:
                return
            if number >= start:
                yield batch
            number += 1
        if number == before:
            raise CriterionError(
                f"the data hold no batch, after {number} of {end}; a generator can be gone through only once: give a "
                "list or a DataLoader"
            )
