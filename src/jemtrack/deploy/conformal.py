"""The threshold of a score below which an image is refused, with a bound on wrong refusals.

Split conformal prediction: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World"
(2005), section 4.1; Angelopoulos and Bates (2021), https://arxiv.org/abs/2107.07511. Letter: N
images.
"""

import math
from fractions import Fraction

import numpy as np

from jemtrack.errors import InputError


def conformal_threshold(scores_N: np.ndarray, alpha: float) -> float:
    """Return the k-th smallest score, k = floor(alpha (N + 1)).

    An image that is exchangeable with these N is below it with a probability of k / (N + 1), at
    most alpha, on average over both: exactly so where no two scores are equal, and less where some
    are. The N images must have chosen neither the weights nor the score.

    Raises:
        InputError: if a score is NaN, or there are too few images for this alpha.
    """
    if np.isnan(scores_N).any():
        raise InputError("the scores must be numbers, got NaN: the model has diverged")
    k = conformal_rank(len(scores_N), alpha)
    return float(np.partition(scores_N, k - 1)[k - 1])


def conformal_rank(n_images: int, alpha: float) -> int:
    """Compute k = floor(alpha (N + 1)).

    Raises:
        InputError: if it is 0: there are too few images for this alpha.
    """
    # Of the decimal number that a person wrote: as a float, .29 * 100 is below 29.
    if k := math.floor(Fraction(repr(alpha)) * (n_images + 1)):
        return k
    raise InputError(
        f"alpha must be >= 1 / (N + 1) = {1 / (n_images + 1):.3g} for the N = {n_images} "
        f"validation images, got {alpha}: take more of them (n_valid), or a larger alpha"
    )
