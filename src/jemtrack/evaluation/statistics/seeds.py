"""Mean and spread of a figure over trainings that differ in their seed, or in their fold."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jemtrack.errors import InputError
from jemtrack.evaluation.statistics.resampling import checked_level


class OverSeeds(NamedTuple):
    """Mean, standard deviation between trainings, and an interval for the mean of endless ones."""

    mean: float
    std: float
    low: float
    high: float
    n_seeds: int


def over_seeds(values: Sequence[float] | np.ndarray, level: float = 0.95) -> OverSeeds:
    """Compute mean and spread of one figure a seed, with Student's t interval for the mean.

    The standard deviation is that of a sample (n - 1). One seed has no spread: the deviation and
    the bounds are then NaN.

    Raises:
        InputError: when there are no values, one is not finite, or `level` is not in (0, 1).
    """
    return _over(values, level, overlap=0.0)


def over_folds(values: Sequence[float] | np.ndarray, level: float = 0.95) -> OverSeeds:
    """Compute mean and spread of one figure a fold of a cross-validation, with an interval.

    The folds' training images overlap, so that their figures vary less than those of independent
    trainings: the variance of the mean is s^2 (1 / k + 1 / (k - 1)) of k folds, by Nadeau and
    Bengio, "Inference for the Generalization Error" (2003), whose correction weighs in how many
    images are tested on for one that is trained on.

    Raises:
        InputError: when there are no values, one is not finite, or `level` is not in (0, 1).
    """
    return _over(values, level, overlap=1 / max(len(values) - 1, 1))


def _over(values: Sequence[float] | np.ndarray, level: float, overlap: float) -> OverSeeds:
    tail = (1 - checked_level(level)) / 2
    values_S = np.asarray(values, dtype=float)
    if values_S.ndim != 1 or len(values_S) == 0 or not np.isfinite(values_S).all():
        raise InputError(f"expected one finite number a run, got {values}")
    mean, count = float(values_S.mean()), len(values_S)
    if count == 1:
        return OverSeeds(mean, math.nan, math.nan, math.nan, 1)
    from scipy.special import stdtrit  # takes a while to import

    std = float(values_S.std(ddof=1))
    half = float(stdtrit(count - 1, 1 - tail)) * std * math.sqrt(1 / count + overlap)
    return OverSeeds(mean, std, mean - half, mean + half, count)
