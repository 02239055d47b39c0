"""Means with confidence intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from prunegraph.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanInterval:
    """A mean over independent values and its confidence interval.

    Attributes:
        mean: of the values.
        half_width: half of the width of the interval, which is symmetric.
        count: number of values.
    """

    mean: float
    half_width: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.half_width:.2f}"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> MeanInterval:
    r"""Student's t interval of the mean: :math:`\bar x \pm t_{n-1} s / \sqrt n`.

    Args:
        values: independent values; NaN stands for a value that is not defined, and is left out.
        confidence: probability with which such intervals hold the true mean, if means are about normal.

    Returns:
        The interval. Without any defined value the mean is NaN, with one the half-width is infinite.

    Raises:
        InputError: the confidence is not between 0 and 1.

    >>> print(mean_interval([1.0, 2.0, 3.0]))
    2.00 ± 2.48
    """
    if not 0 < confidence < 1:
        raise InputError(f"The confidence must lie between 0 and 1, not at {confidence}.")
    defined = np.asarray([value for value in values if not math.isnan(value)], dtype=np.float64)
    if defined.size < 2:
        mean = float(defined[0]) if defined.size else math.nan
        return MeanInterval(mean=mean, half_width=math.inf, count=defined.size)
    quantile = stats.t.ppf((1 + confidence) / 2, df=defined.size - 1)
    half_width = float(quantile * defined.std(ddof=1) / math.sqrt(defined.size))
    return MeanInterval(mean=float(defined.mean()), half_width=half_width, count=defined.size)
