"""How keep values are drawn from logits: relaxed and held to a budget, or hard at a fixed threshold."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

GUMBEL_MEDIAN = -math.log(math.log(2))
_STRETCH = 0.1
_HOTTEST, _COLDEST = 0.3, 0.1
_SPREAD = 4.0


class Masks(Protocol):
    """Keep values of one step."""

    def start(self, prior: Sequence[Tensor], noise: torch.Generator) -> Tensor:
        """The logits before the first step, shape ``(channels,)``.

        Args:
            prior: what the channels seem to be worth before anything is learned, shape ``(width,)`` for each group.
            noise: source of randomness.
        """

    def pace(self, done: float) -> float:
        """Share of the learning rate with which a step is made, after a share ``done`` of the steps."""

    def sample(self, logits: Tensor, noise: Tensor, done: float) -> Tensor:
        """Keep values in [0, 1] of all channels, differentiable in the logits.

        Args:
            logits: of all channels, shape ``(channels,)``.
            noise: independent Gumbel variates, ``-log(-log U)``.
            done: share of the steps that have been made.
        """

    def price(self, benefit: Tensor) -> Tensor:
        """What each channel's benefit must exceed for its logit to rise, shape ``(channels,)``."""


class BudgetMasks:
    r"""Hard concrete masks around the threshold at which as many channels of each group stay as the budget leaves.

    With noisy logits $z = \alpha + \tau g$, the threshold $\theta$ half-way between the last of the group's channels
    that stays and the first that goes, and a temperature $\tau$ that falls from 0.3 to 0.1, keep values are
    $\sigma((z - \theta) / \tau)$, stretched by a tenth beyond 0 and 1 and cut off there. Only undecided channels are
    between: what the loss says about those at half strength tells what they are worth, which at full strength it does
    not (in a trained network the derivative by a channel's scale is about 0). The harder the masks become, the nearer
    the program is to the network that remains.

    Logits start from the ranks of the prior within each group, spread over four: few steps from a good guess find more
    than many from none.

    Args:
        widths: channels of each group.
        staying: how many of them stay.
        boldness: share of the learning rate at the first step. The more goes, the more the prior misses.

    Reference:
        Louizos et al., Learning Sparse Neural Networks through L0 Regularization, ICLR 2018, section 2.3.
    """

    def __init__(self, widths: Sequence[int], staying: Sequence[int], boldness: float) -> None:
        self._widths, self._staying, self._boldness = list(widths), list(staying), boldness

    def start(self, prior: Sequence[Tensor], noise: torch.Generator) -> Tensor:
        """Ranks from 0 to 1 within each group, times the spread."""
        return _SPREAD * torch.cat([ranks(scores) for scores in prior])

    def pace(self, done: float) -> float:
        """The boldness, so that the prior is not forgotten, falling to 0, so that the last batches do not decide."""
        return self._boldness * (1 - done)

    def sample(self, logits: Tensor, noise: Tensor, done: float) -> Tensor:
        """Relaxed keep values."""
        temperature = max(_COLDEST, _HOTTEST * (1 - done))
        noisy = logits + temperature * noise
        soft = torch.sigmoid((noisy - self._margins(noisy.detach())) / temperature)
        return ((1 + 2 * _STRETCH) * soft - _STRETCH).clamp(0, 1)

    def price(self, benefit: Tensor) -> Tensor:
        """The benefit at which just as many channels of a group are worth it as may stay."""
        return self._margins(benefit)

    def _margins(self, values: Tensor) -> Tensor:
        """Half-way between the last value of the group that stays and the first that goes, for each channel."""
        groups = zip(torch.split(values, self._widths), self._staying, strict=True)
        return torch.cat([_margin(part, count).expand_as(part) for part, count in groups])


class ThresholdMasks:
    r"""The paper's masks: $m = [\sigma(\alpha + g) > \epsilon]$, hard, with a straight-through gradient.

    Args:
        epsilon: the threshold.
    """

    def __init__(self, epsilon: float) -> None:
        self.threshold = math.log(epsilon) - math.log1p(-epsilon)

    def start(self, prior: Sequence[Tensor], noise: torch.Generator) -> Tensor:
        """Uniform in [0, 1], as in the paper."""
        reference = torch.cat(list(prior))
        return torch.rand(len(reference), generator=noise).to(reference.device)

    def pace(self, done: float) -> float:
        """Always the same."""
        return 1.0

    def sample(self, logits: Tensor, noise: Tensor, done: float) -> Tensor:
        """Hard keep values."""
        noisy = logits + noise
        kept: Tensor = StraightThrough.apply(torch.sigmoid(noisy), noisy > self.threshold)  # type: ignore[no-untyped-call]
        return kept

    def price(self, benefit: Tensor) -> Tensor:
        """Nothing holds these masks to a budget."""
        return torch.zeros_like(benefit)


class StraightThrough(torch.autograd.Function):
    """Hard keep values forward; backward the gradient of the soft ones, clipped to [-1, 1]."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        """Returns ``hard``."""
        return hard.to(soft.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Passes the clipped gradient to ``soft``."""
        return gradients[0].clamp(-1, 1), None


def ranks(scores: Tensor) -> Tensor:
    """Ranks from 0 to 1; equal scores share one, and where none differs it is the middle."""
    rank = torch.unique(scores, return_inverse=True)[1].float()
    return rank / rank.max() if bool(rank.any()) else torch.full_like(rank, 0.5)


def _margin(values: Tensor, staying: int) -> Tensor:
    """Half-way between the last value that stays and the first that goes; with nothing to go, below all of them."""
    if staying >= len(values):
        return values.min() - 1
    return torch.topk(values, staying + 1).values[-2:].mean()
