"""The bootstrap: how far a figure would move with other images of the same kind.

A resample draws as many images as there are, with replacement, so it is how often each image was
drawn; a figure that can be computed from such counts is resampled a block of resamples at a time.
The figures of all models from the same counts are paired: their difference is that on the same
images. Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13 and 16.

Letters: N images, M bins that hold some, R resamples, K figures.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import numpy as np

from jemtrack.errors import InputError

# From how often each image was drawn, (R, N), the figure of each resample, (R,), or several of
# them, (R, K).
Figure = Callable[[np.ndarray], np.ndarray]

Key = TypeVar("Key", bound=Hashable)

N_RESAMPLES = 1000
_RESAMPLES_PER_TEST = 40
_COUNTS_AT_ONCE = 2**15  # these and what a figure makes of them stay in the processor's cache


class Interval(NamedTuple):
    """The bounds of a confidence interval."""

    low: float
    high: float


def enough_resamples(n_tests: int) -> int:
    """Compute how many resamples so many tests need, for a corrected p-value to be significant.

    A p-value of R resamples is at least 1 / (R + 1); the lowest corrected one is then below .025.
    """
    return _RESAMPLES_PER_TEST * n_tests


def mean_of(values_N: np.ndarray) -> Figure:
    """Make the figure that is the mean of a value an image, such as accuracy, NLL or Brier."""
    return lambda counts_RN: (counts_RN @ values_N) / len(values_N)


def calibration_error_of(
    bin_left_M: np.ndarray, confidence_N: np.ndarray, correct_N: np.ndarray
) -> Figure:
    """Make the figure that is the calibration error in the bins of a `reliability_table`.

    For the difference of two models; the error itself needs `calibration_error_interval`.
    """
    bin_N = np.searchsorted(bin_left_M, confidence_N, side="right") - 1
    gaps_NM = np.zeros((len(bin_N), len(bin_left_M)))
    gaps_NM[np.arange(len(bin_N)), bin_N] = correct_N - confidence_N
    return lambda counts_RN: np.abs(counts_RN @ gaps_NM).sum(axis=1) / len(bin_N)


def bootstrap(
    figures: Mapping[Key, Figure],
    n_images: int | Sequence[int],
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> dict[Key, np.ndarray]:
    """Compute each figure of each resample, all of them from the same resamples.

    With several numbers in `n_images`, such as images and outliers, each group is resampled by
    itself, and the counts are in this order. The memory does not grow with `n_resamples`.

    Raises:
        InputError: when there is nothing to resample.
    """
    sizes = [n_images] if isinstance(n_images, int) else [*n_images]
    if not sizes or min(sizes) < 1 or n_resamples < 1:
        raise InputError(f"expected images and resamples, got {sizes} and {n_resamples}")
    blocks = [
        [figure(counts_RN) for figure in figures.values()]
        for counts_RN in _counts(sizes, n_resamples, np.random.default_rng(seed))
    ]
    return {name: np.concatenate(parts) for name, *parts in zip(figures, *blocks, strict=True)}


def _counts(
    sizes: list[int], n_resamples: int, stream: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield how often each image was drawn, some resamples at a time, each of its own numbers."""
    at_once = max(1, _COUNTS_AT_ONCE // sum(sizes))
    for first in range(0, n_resamples, at_once):
        n_rows = min(at_once, n_resamples - first)
        yield np.hstack([_group_counts(size, n_rows, stream) for size in sizes])


def _group_counts(size: int, n_rows: int, stream: np.random.Generator) -> np.ndarray:
    drawn = stream.integers(size, size=(n_rows, size))
    drawn += np.arange(n_rows)[:, None] * size
    counts = np.bincount(drawn.ravel(), minlength=n_rows * size)
    return counts.reshape(n_rows, size).astype(np.float64)


def percentile_interval(resampled_R: np.ndarray, level: float = 0.95) -> Interval:
    """Compute the interval that holds the middle `level` of the resampled figures.

    It covers what is a mean over images, or close to one. It collapses where all images agree
    (accuracy 1: use `wilson_interval`), and it misses where chance moves a figure one way only
    (the calibration error: use `calibration_error_interval`).

    Raises:
        InputError: when `level` is not between 0 and 1.
    """
    tail = (1 - checked_level(level)) / 2
    low, high = np.quantile(resampled_R, [tail, 1 - tail])
    return Interval(float(low), float(high))


def wilson_interval(
    n_right: float | np.ndarray, n_images: float | np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the bounds of a proportion from counts, scalars or arrays, also where all are right.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927); Brown,
    Cai and DasGupta, "Interval Estimation for a Binomial Proportion" (2001), recommend it.

    Raises:
        InputError: when `level` is not between 0 and 1, or the counts do not fit together.
    """
    right, count = np.asarray(n_right, dtype=float), np.asarray(n_images, dtype=float)
    if (count < 1).any() or (right < 0).any() or (right > count).any():
        raise InputError("expected 0 <= n_right <= n_images and n_images >= 1")
    share, square = right / count, normal_quantile(level) ** 2
    half = np.sqrt(square * (share * (1 - share) / count + square / (4 * count**2)))
    middle, scale = share + square / (2 * count), 1 + square / count
    # Rounding must not keep a bound from what was seen.
    low = np.minimum((middle - half) / scale, share)
    high = np.maximum((middle + half) / scale, share)
    return low.clip(0, 1), high.clip(0, 1)


def normal_quantile(level: float) -> float:
    """Compute how many standard deviations on both sides hold `level` of a normal variable."""
    return NormalDist().inv_cdf((1 + checked_level(level)) / 2)


def checked_level(level: float) -> float:
    """Return `level`.

    Raises:
        InputError: when it is not between 0 and 1.
    """
    if not 0 < level < 1 or math.isnan(level):
        raise InputError(f"level must be between 0 and 1, such as 0.95, got {level}")
    return level
