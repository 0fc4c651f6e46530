"""Tests of whether two models differ on the same images by more than chance.

Letters: N images, R resamples, T tests.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jemtrack.errors import InputError
from jemtrack.evaluation.statistics.resampling import Interval, checked_level, normal_quantile

# Below this many images on which the models disagree, chi-squared is not exact enough.
EXACT_BELOW = 25
NO_BIAS = Interval(0.0, 0.0)


class PairedTest(NamedTuple):
    """First model less second: the difference, its interval and its two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def mcnemar(
    first_correct_N: np.ndarray, second_correct_N: np.ndarray, level: float = 0.95
) -> PairedTest:
    """Test whether two accuracies differ, from the images that only one of the models gets right.

    McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages" (1947): with fewer than 25 such images the exact binomial test, else chi-squared
    with Edwards's correction for continuity (1948). The interval is Agresti and Min's, "Simple
    improved confidence intervals for comparing matched proportions" (2005), which adds half an
    image to each of the four cases, so that it has a width where the models agree on all.

    Args:
        first_correct_N: whether the first model is right, of each image.
        second_correct_N: that of the second model, of the same images.
        level: of confidence.

    Raises:
        InputError: when `level` is not between 0 and 1.
    """
    quantile = normal_quantile(level)
    first_N, second_N = first_correct_N.astype(bool), second_correct_N.astype(bool)
    first_only, second_only = int((first_N & ~second_N).sum()), int((second_N & ~first_N).sum())
    count, one, two = len(first_N) + 2, first_only + 0.5, second_only + 0.5
    centre = (one - two) / count
    half = quantile * np.sqrt(one + two - (one - two) ** 2 / count) / count
    return PairedTest(
        difference=(first_only - second_only) / len(first_N),
        low=max(float(centre - half), -1.0),
        high=min(float(centre + half), 1.0),
        p_value=_mcnemar_p(first_only, second_only),
    )


def _mcnemar_p(first_only: int, second_only: int) -> float:
    from scipy.special import bdtr, chdtrc  # takes a while to import

    discordant = first_only + second_only
    if discordant < EXACT_BELOW:
        return min(1.0, 2 * float(bdtr(min(first_only, second_only), discordant, 0.5)))
    distance = max(abs(first_only - second_only) - 1, 0)
    return float(chdtrc(1, distance**2 / discordant))


def paired_bootstrap(
    difference: float,
    resampled_differences_R: np.ndarray,
    level: float = 0.95,
    bias: Interval = NO_BIAS,
) -> PairedTest:
    """Test whether a figure differs between two models, from its difference in each resample.

    The resamples vary around their own mean as the difference seen varies around the truth. The
    p-value is how often they stray as far as the difference is from 0 (Efron and Tibshirani 1993,
    section 16.4; Hall and Wilson, "Two Guidelines for Bootstrap Hypothesis Testing", 1991), never
    below 1 / (R + 1).

    `bias` bounds how much the difference is too high on average: a figure of few images is
    biased, and that of one model more than that of the other. The interval holds all of the
    differences that remain, and the nearest to 0 is tested.

    Raises:
        InputError: when `level` is not between 0 and 1.
    """
    tail = (1 - checked_level(level)) / 2
    strayed_R = resampled_differences_R - resampled_differences_R.mean()
    low, high = difference - bias.high, difference - bias.low
    nearest = max(low, -high, 0.0)
    low, high = np.array([low, high]) + np.quantile(strayed_R, [tail, 1 - tail])
    n_as_far = int((np.abs(strayed_R) >= nearest).sum())
    p_value = (n_as_far + 1) / (len(strayed_R) + 1)
    return PairedTest(difference, float(low), float(high), p_value)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Correct p-values for their number, (T,), in the order in which they came.

    At a level of .05 the chance of one false finding or more among all of them is .05 at most,
    whatever they have to do with each other. Holm, "A simple sequentially rejective multiple test
    procedure" (1979).

    Raises:
        InputError: when one is not from 0 to 1.
    """
    p_values_T = np.asarray(p_values, dtype=float)
    if p_values_T.ndim != 1 or not ((p_values_T >= 0) & (p_values_T <= 1)).all():
        raise InputError(f"p-values must be from 0 to 1, got {p_values}")
    order_T = np.argsort(p_values_T, kind="stable")
    factors_T = np.arange(len(order_T), 0, -1)
    corrected_T = np.empty_like(p_values_T)
    corrected_T[order_T] = np.maximum.accumulate(factors_T * p_values_T[order_T]).clip(max=1)
    return corrected_T


def with_correction(pairs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Make a table of tests with `p_corrected`: Holm's, for the number of those with a p-value."""
    columns = ["measure", "first", "second", "difference", "low", "high", "p_value", "test"]
    columns += [name for name in (pairs[0] if pairs else ()) if name not in columns]
    table = pd.DataFrame([*pairs], columns=columns)
    tested = table["p_value"].notna()
    p_corrected = pd.Series(np.nan, index=table.index)
    p_corrected[tested] = holm(table.loc[tested, "p_value"].to_numpy(dtype=float))
    return table.assign(p_corrected=p_corrected)
