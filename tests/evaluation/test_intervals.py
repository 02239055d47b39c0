import math

import numpy as np
import pytest
from scipy import stats

from prunegraph.errors import InputError
from prunegraph.evaluation.intervals import mean_interval


def test_the_interval_by_hand() -> None:
    """Of 1, 2, 3: s = 1, and the quantile 0.975 of Student's t with 2 degrees of freedom is 4.302652..."""
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2
    assert interval.half_width == pytest.approx(4.302652729911275 / math.sqrt(3))
    assert (interval.count, str(interval)) == (3, "2.00 ± 2.48")


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_it_is_the_interval_of_the_t_test(confidence: float) -> None:
    values = np.random.default_rng(0).normal(5, 2, size=23)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    interval = mean_interval(values.tolist(), confidence)
    assert interval.mean - interval.half_width == pytest.approx(expected.low)
    assert interval.mean + interval.half_width == pytest.approx(expected.high)


def test_it_holds_the_true_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1).normal(3, 1, size=(1000, 5))
    intervals = [mean_interval(row.tolist()) for row in draws]
    held = [abs(interval.mean - 3) <= interval.half_width for interval in intervals]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_undefined_values_are_left_out() -> None:
    assert mean_interval([1.0, math.nan, 3.0]) == mean_interval([1.0, 3.0])


@pytest.mark.parametrize(("values", "mean"), [([], math.nan), ([math.nan], math.nan), ([4.0], 4.0)])
def test_too_few_values_have_no_finite_interval(values: list[float], mean: float) -> None:
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert math.isinf(interval.half_width)


def test_equal_values_have_an_interval_without_width() -> None:
    assert mean_interval([2.0] * 4).half_width == 0


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_an_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], confidence)
