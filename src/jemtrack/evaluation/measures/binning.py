"""Bins of confidence, of equal width or of equally many images.

A `Binning` computes the edges, ascending from 0 to 1; each bin holds its left edge, the last
one holds 1 as well.

Letters: N images, E edges.
"""

from collections.abc import Callable

import numpy as np

from jemtrack.errors import InputError

Binning = Callable[[np.ndarray, int], np.ndarray]


def equal_width(confidence_N: np.ndarray, n_bins: int) -> np.ndarray:
    """Compute the edges of `n_bins` bins of equal width, whatever `confidence_N` is.

    Raises:
        InputError: when `n_bins` is below 1.
    """
    # Not linspace: its 0.15000000000000002 would push a confidence of 0.15 into the bin below.
    return np.arange(_checked_number(n_bins) + 1) / n_bins


def equal_mass(confidence_N: np.ndarray, n_bins: int) -> np.ndarray:
    """Compute the edges of at most `n_bins` bins with equally many images, or one more or less.

    Images of equal confidence stay together, whatever their order: they share a bin, which then
    holds more, and there may be fewer bins.

    Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language
    processing models" (2015), section 3.

    Raises:
        InputError: when `n_bins` is below 1.
    """
    ascending_N = np.sort(confidence_N)
    firsts = np.arange(1, _checked_number(n_bins)) * len(ascending_N) // n_bins
    inner = np.unique(ascending_N[firsts])
    return np.concatenate([[0.0], inner[inner > ascending_N[0]], [1.0]])


def bin_indices(confidence_N: np.ndarray, edges_E: np.ndarray) -> np.ndarray:
    """Find the bin of each image, from 0."""
    return np.searchsorted(edges_E[1:-1], confidence_N, side="right")


def _checked_number(n_bins: int) -> int:
    if n_bins < 1:
        raise InputError(f"n_bins must be >= 1, got {n_bins}: use 20, as is usual")
    return n_bins
