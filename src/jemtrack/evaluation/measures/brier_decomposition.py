"""The parts of a Brier score: reliability, resolution and uncertainty.

Letters: N images, C classes.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from jemtrack.evaluation.measures.binning import Binning, bin_indices, equal_width


@dataclass(frozen=True)
class BrierDecomposition:
    """Brier score = `reliability` - `resolution` + `uncertainty` + `remainder`, exactly.

    Attributes:
        reliability: squared distance of probability and frequency in a bin; 0 is best.
        resolution: how far the bins' frequencies are from the class's own; more is better.
        uncertainty: the variance of the classes, which no model changes.
        remainder: what the bins hide, the variance of the probabilities within a bin less twice
            their covariance with the truth; 0 where a bin holds one probability.
    """

    reliability: float
    resolution: float
    uncertainty: float
    remainder: float

    @property
    def brier(self) -> float:
        """Their sum, the score itself."""
        return self.reliability - self.resolution + self.uncertainty + self.remainder


def brier_decomposition(
    probabilities_NC: Tensor, labels_N: Tensor, n_bins: int = 20, binning: Binning = equal_width
) -> BrierDecomposition:
    """Decompose the Brier score of each class by bins of its probability, and sum over classes.

    Murphy, "A new vector partition of the probability score" (1973), for one class; the two
    terms within bins are those of Stephenson, Coelho and Jolliffe, "Two extra components in the
    Brier score decomposition" (2008). The sum over the classes is the score of several classes.
    """
    terms_C4 = [
        _terms(probability_N, (labels_N == class_).double().numpy(), n_bins, binning)
        for class_, probability_N in enumerate(probabilities_NC.T.numpy())
    ]
    return BrierDecomposition(*np.sum(terms_C4, axis=0).tolist())


def _terms(
    probability_N: np.ndarray, truth_N: np.ndarray, n_bins: int, binning: Binning
) -> tuple[float, float, float, float]:
    bin_N = bin_indices(probability_N, binning(probability_N, n_bins))
    count = np.maximum(np.bincount(bin_N), 1)
    mean_N = (np.bincount(bin_N, probability_N) / count)[bin_N]
    frequency_N = (np.bincount(bin_N, truth_N) / count)[bin_N]
    rate = truth_N.mean()
    within_N = (probability_N - mean_N) * (probability_N - mean_N - 2 * (truth_N - frequency_N))
    return (
        float(np.mean((mean_N - frequency_N) ** 2)),
        float(np.mean((frequency_N - rate) ** 2)),
        float(rate * (1 - rate)),
        float(np.mean(within_N)),
    )
