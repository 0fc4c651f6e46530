"""Intervals for a calibration error, and for each bin of a reliability diagram.

Chance alone moves every bin's accuracy away from its confidence, so the calibration error of few
images is too high: that of a perfectly calibrated model is above 0. The bootstrap adds this once
more instead of taking it away, and its percentile interval then never holds the truth
(`python -m benchmarks.ece_coverage`). What is here simulates the bins instead, as in Bröcker and
Smith, "Increasing the Reliability of Reliability Diagrams" (2007), but for a range of truths.

Letters: M bins that hold images, R simulated sets of images.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from jemtrack.errors import InputError
from jemtrack.evaluation.statistics.resampling import (
    Interval,
    checked_level,
    normal_quantile,
    wilson_interval,
)

# How many standard errors a bin's true accuracy may be off the one that was seen: towards the
# confidence for the lower bound, away from it, at least, for the upper one. These are not levels
# of confidence; the benchmark shows the coverage that they give.
_TOWARDS = 3.0
_AWAY = 0.7
# Right images are whole numbers: a quantile at the very tail may stop one short of what was seen.
_OF_THE_TAIL = 0.8
N_SIMULATED = 4000


class Bins(NamedTuple):
    """Of each bin, its images, how many of them are right, and the mean confidence; (M,) each."""

    count_M: np.ndarray
    right_M: np.ndarray
    confidence_M: np.ndarray


def calibration_error_interval(
    table: pd.DataFrame, seed: int, level: float = 0.95, n_simulated: int = N_SIMULATED
) -> Interval:
    """Compute an interval for the calibration error of endless images in these bins.

    `table` is a `reliability_table`, of any binning. The error seen is the truth and what chance
    adds, which is most where the bins are calibrated and next to nothing where they are far off.
    So the lower bound takes away what chance adds if each bin is as well calibrated as the
    images allow, and the upper bound what it adds if each is somewhat worse than it looks. Both
    come from simulated images: of each bin a binomial number is right, and the bins' shares vary.

    It holds the truth at least as often as `level` says, and more often where the model is
    neither calibrated nor far off. It is 0 at the lower end where the model may be calibrated.

    Raises:
        InputError: when the table has no rows, or `level` is not between 0 and 1.
    """
    tail = _OF_THE_TAIL * (1 - checked_level(level)) / 2
    seen, calibrated_R, worse_R = _seen_and_added(table, seed, level, n_simulated)
    low = seen - float(np.quantile(calibrated_R, 1 - tail))
    high = seen - float(np.quantile(worse_R, tail))
    return Interval(min(max(low, 0.0), seen), max(min(high, 1.0), seen))


def calibration_error_bias(
    table: pd.DataFrame, seed: int, level: float = 0.95, n_simulated: int = 1000
) -> Interval:
    """Bound how much the calibration error seen in `table` is too high on average.

    They belong to the two kinds of truth between which `calibration_error_interval` lies.

    Raises:
        InputError: when the table has no rows, or `level` is not between 0 and 1.
    """
    _, calibrated_R, worse_R = _seen_and_added(table, seed, checked_level(level), n_simulated)
    low, high = sorted(float(each_R.mean()) for each_R in (calibrated_R, worse_R))
    return Interval(min(low, 0.0), high)


def _seen_and_added(
    table: pd.DataFrame, seed: int, level: float, n_simulated: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Compute the error, and what chance adds if calibrated and if worse than it looks, (R,)."""
    if table.empty:
        raise InputError("the reliability table has no rows: there are no images to measure on")
    count_M = table["count"].to_numpy().astype(int)
    right_M = (table["accuracy"] * count_M).to_numpy().round()
    bins = Bins(count_M, right_M, table["confidence"].to_numpy())
    stream, quantile = np.random.default_rng(seed), normal_quantile(level)
    seen = float(np.abs(bins.right_M - count_M * bins.confidence_M).sum() / count_M.sum())
    calibrated_R = _added(bins, *_if_calibrated(bins, quantile), n_simulated, stream)
    worse_R = _added(bins, *_if_worse(bins, quantile), n_simulated, stream)
    return seen, calibrated_R, worse_R


def _if_calibrated(bins: Bins, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the smallest possible gaps, and the accuracies whose noise goes with them, (M,)."""
    nearest_M = bins.confidence_M.clip(*_accuracies(bins, _TOWARDS))
    # Of few images far off, the noise at three standard errors would be too small.
    accuracy_M = bins.confidence_M.clip(*_accuracies(bins, quantile))
    return nearest_M - bins.confidence_M, accuracy_M


def _if_worse(bins: Bins, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute gaps that are larger than what was seen, and accuracies for the noise, (M,) each.

    Together the bins are as much worse as their error's own noise allows: one bin that holds
    nearly all images by the whole quantile, many alike by little each.
    """
    # Agresti and Coull's: a bin in which all is right is not known to be without noise.
    accuracy_M = (bins.right_M + quantile**2 / 2) / (bins.count_M + quantile**2)
    noise_M = np.sqrt(bins.count_M * accuracy_M * (1 - accuracy_M))
    away_M = np.maximum(quantile * noise_M / np.linalg.norm(noise_M), _AWAY)
    limits_2M = np.stack(_accuracies(bins, away_M))
    farther_M = np.abs(limits_2M - bins.confidence_M).argmax(axis=0)
    limit_M = limits_2M[farther_M, np.arange(len(farther_M))]
    noisier_M = np.where(np.abs(limit_M - 0.5) < np.abs(accuracy_M - 0.5), limit_M, accuracy_M)
    return limit_M - bins.confidence_M, noisier_M


def _accuracies(bins: Bins, standard_errors: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the lowest and highest true accuracy so far from what was seen, (M,) each.

    Clopper and Pearson's exact limits (1934): of rare errors, Wilson's are too near.
    """
    from scipy.special import betaincinv, ndtr  # takes a while to import

    tail_M, wrong_M = ndtr(-np.asarray(standard_errors)), bins.count_M - bins.right_M
    low_M = betaincinv(np.maximum(bins.right_M, 1e-9), wrong_M + 1, tail_M)
    high_M = betaincinv(bins.right_M + 1, np.maximum(wrong_M, 1e-9), 1 - tail_M)
    return np.where(bins.right_M > 0, low_M, 0.0), np.where(wrong_M > 0, high_M, 1.0)


def _added(
    bins: Bins,
    gap_M: np.ndarray,
    accuracy_M: np.ndarray,
    n_simulated: int,
    stream: np.random.Generator,
) -> np.ndarray:
    """Simulate error seen less true error of bins with these true gaps and this noise, (R,)."""
    count_M, n_images = bins.count_M, bins.count_M.sum()
    shape = (n_simulated, len(count_M))
    noise_RM = stream.binomial(count_M, accuracy_M.clip(0, 1), size=shape) - count_M * accuracy_M
    true_M, share_M = np.abs(gap_M), count_M / n_images
    # The bins' shares vary, too, and with them how much each gap weighs: a mean over all images.
    spread = share_M @ true_M**2 - (share_M @ true_M) ** 2
    between_R = stream.normal(0, np.sqrt(max(spread, 0) / n_images), size=n_simulated)
    seen_RM = np.abs(count_M * gap_M + noise_RM)
    added_R: np.ndarray = (seen_RM - count_M * true_M).sum(axis=1) / n_images + between_R
    return added_R


def with_intervals(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Extend a `reliability_table` by `accuracy_low` and `accuracy_high` of each bin by itself.

    They are Wilson's. Of twenty calibrated bins, one in twenty misses its confidence at 95%.

    Raises:
        InputError: when `level` is not between 0 and 1.
    """
    right_M = (table["accuracy"] * table["count"]).clip(0, table["count"])
    low_M, high_M = wilson_interval(right_M.to_numpy(), table["count"].to_numpy(), level)
    return table.assign(accuracy_low=low_M, accuracy_high=high_M)
