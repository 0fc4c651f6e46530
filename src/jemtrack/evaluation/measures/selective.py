"""What a classifier errs in when it may decline: risk against coverage.

Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks" (2017), for the curve;
Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers"
(2019), for AURC and the excess over the best order.

Images of equal confidence cannot be told apart, so the risk within a tie is its mean over all
orders: the order of the images changes nothing. Letters: N images.
"""

import numpy as np
import pandas as pd
from torch import Tensor

from jemtrack.evaluation.measures.inputs import checked_values


def aurc(confidence_N: Tensor | np.ndarray, correct_N: Tensor | np.ndarray) -> float:
    """Give the mean of the risk over the coverages 1/N, 2/N to 1; 0 is best, 1 is all wrong.

    The risk at k/N is the fraction of wrong images among the k of highest confidence.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    return float(_risks(confidence_N, correct_N).mean())


def excess_aurc(confidence_N: Tensor | np.ndarray, correct_N: Tensor | np.ndarray) -> float:
    """Give AURC less that of the best order, in which all that is right comes first.

    It tells how well confidence ranks, apart from how often the model is right; 0 is best.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    risks_N = _risks(confidence_N, correct_N)
    count_N = np.arange(1, len(risks_N) + 1)
    n_right = len(risks_N) - round(risks_N[-1] * len(risks_N))
    best = float((np.maximum(count_N - n_right, 0) / count_N).mean())
    return max(float(risks_N.mean()) - best, 0.0)


def risk_coverage(
    confidence_N: Tensor | np.ndarray, correct_N: Tensor | np.ndarray, n_points: int = 200
) -> pd.DataFrame:
    """Give at most `n_points` rows of `coverage` and `risk`, by coverage, the last of them at 1.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    risks_N = _risks(confidence_N, correct_N)
    count = len(risks_N)
    chosen = np.unique(np.linspace(1, count, min(n_points, count)).round().astype(int))
    return pd.DataFrame({"coverage": chosen / count, "risk": risks_N[chosen - 1]})


def _risks(confidence_N: Tensor | np.ndarray, correct_N: Tensor | np.ndarray) -> np.ndarray:
    confidence_N, correct_N = checked_values("confidence and correct", confidence_N, correct_N)
    _, tie_N = np.unique(-confidence_N, return_inverse=True)
    wrong_in_tie = np.bincount(tie_N, 1 - correct_N) / np.bincount(tie_N)
    return np.cumsum(wrong_in_tie[np.sort(tie_N)]) / np.arange(1, len(tie_N) + 1)
