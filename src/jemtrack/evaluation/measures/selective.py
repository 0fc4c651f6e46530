"""Selective classification: the risk of a classifier that may abstain, against its coverage.

Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks" (2017), for the curve;
Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers"
(2019), for AURC and the excess over the best order.

Images of equal confidence cannot be told apart, so the risk within a tie is its mean over all
orders: the order of the images changes nothing. Input is trusted: see `LabelledLogits`.
Letters: N images.
"""

import numpy as np
import pandas as pd


def aurc(confidence_N: np.ndarray, correct_N: np.ndarray) -> float:
    """Average the risk over the coverages 1/N, 2/N to 1; 0 is best, 1 is all wrong.

    The risk at k/N is the fraction of wrong images among the k of highest confidence.
    """
    return float(_risks(confidence_N, correct_N).mean())


def excess_aurc(confidence_N: np.ndarray, correct_N: np.ndarray) -> float:
    """Compute AURC less that of the best order, in which all that is right comes first.

    It measures how well confidence ranks, apart from how often the model is right; 0 is best.
    """
    risks_N = _risks(confidence_N, correct_N)
    count_N = np.arange(1, len(risks_N) + 1)
    n_right = len(risks_N) - round(risks_N[-1] * len(risks_N))
    best = float((np.maximum(count_N - n_right, 0) / count_N).mean())
    return max(float(risks_N.mean()) - best, 0.0)


def risk_coverage(
    confidence_N: np.ndarray, correct_N: np.ndarray, n_points: int = 200
) -> pd.DataFrame:
    """Compute at most `n_points` rows of `coverage` and `risk`, by coverage, up to 1."""
    risks_N = _risks(confidence_N, correct_N)
    count = len(risks_N)
    chosen = np.unique(np.linspace(1, count, min(n_points, count)).round().astype(int))
    return pd.DataFrame({"coverage": chosen / count, "risk": risks_N[chosen - 1]})


def _risks(confidence_N: np.ndarray, correct_N: np.ndarray) -> np.ndarray:
    _, tie_N = np.unique(-confidence_N, return_inverse=True)
    wrong_in_tie = np.bincount(tie_N, 1 - correct_N) / np.bincount(tie_N)
    return np.cumsum(wrong_in_tie[np.sort(tie_N)]) / np.arange(1, len(tie_N) + 1)
