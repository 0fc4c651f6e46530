"""How far a classifier's probabilities can be believed: accuracy, NLL, Brier score, ECE.

Legend: N images, C classes. All is computed on the CPU in float64, whatever the input's type.
How sure these figures are: `jemtrack.evaluation.statistics.calibration_interval` and `bootstrap`.

Guo et al., "On Calibration of Modern Neural Networks" (2017), for the calibration error and the
reliability diagram; Brier, "Verification of forecasts expressed in terms of probability" (1950).
"""

import numpy as np
import pandas as pd
from torch import Tensor

from jemtrack.evaluation.measures.binning import Binning, bin_indices, equal_width
from jemtrack.evaluation.measures.inputs import checked_probabilities
from jemtrack.evaluation.measures.scores import brier_by_image, correct, nll_by_image


def accuracy(probabilities_NC: Tensor, labels_N: Tensor) -> float:
    """Fraction of images whose most probable class is their label; the first of equals counts.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    probabilities_NC, labels_N = checked_probabilities(probabilities_NC, labels_N)
    return float(correct(probabilities_NC, labels_N).mean())


def nll(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Mean negative log-likelihood of the labels, in nats.

    It takes logits, because the logarithm of a probability that was rounded to 0 is infinite.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    return float(nll_by_image(logits_NC, labels_N).mean())


def brier(probabilities_NC: Tensor, labels_N: Tensor) -> float:
    """Brier's own form of his score: squared errors summed over classes, mean over images.

    It lies between 0 and 2; with two classes it is twice the form that looks at one class alone.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    return float(brier_by_image(probabilities_NC, labels_N).mean())


def ece(
    probabilities_NC: Tensor, labels_N: Tensor, n_bins: int = 20, binning: Binning = equal_width
) -> float:
    """Mean over images of |accuracy - mean confidence| of their bin: expected calibration error.

    The bins are those of `reliability_table`. With few images it is above the truth: a perfectly
    calibrated model has more than 0.

    Raises:
        InputError: when there is no image, or the input does not fit together.
    """
    table = reliability_table(probabilities_NC, labels_N, n_bins, binning)
    return float(table["ece"].iloc[0])


def ece_bin_centre(probabilities_NC: Tensor, labels_N: Tensor, n_bins: int = 20) -> float:
    """Calibration error of the older form, which takes a bin's centre for its mean confidence.

    It can be off the standard form by half a bin: a perfect predictor has 1 / (2 n_bins), not 0.

    Raises:
        InputError: when there is no image, or the input does not fit together.
    """
    table = reliability_table(probabilities_NC, labels_N, n_bins)
    return _mean_distance(table, "bin_centre")


def ece_class_wise(
    probabilities_NC: Tensor, labels_N: Tensor, n_bins: int = 20, binning: Binning = equal_width
) -> float:
    """Mean over the classes of the calibration error of each class's probability.

    It sees a model that is too sure of one class and too little of another. Kull et al., "Beyond
    temperature scaling" (2019), equation 3; Nixon et al., "Measuring Calibration in Deep
    Learning" (2019), have it as the static calibration error.

    Raises:
        InputError: when there is no image, or the input does not fit together.
    """
    probabilities_NC, labels_N = checked_probabilities(probabilities_NC, labels_N)
    errors = []
    for class_, probability_N in enumerate(probabilities_NC.T.numpy()):
        is_class_N = (labels_N == class_).double().numpy()
        table = _table(probability_N, is_class_N, binning(probability_N, n_bins))
        errors.append(_mean_distance(table, "confidence"))
    return float(np.mean(errors))


def reliability_table(
    probabilities_NC: Tensor, labels_N: Tensor, n_bins: int = 20, binning: Binning = equal_width
) -> pd.DataFrame:
    """One row for each bin of confidence that holds an image, in ascending order.

    The `n_bins` bins are of equal width, or as `binning` has them; each holds its left edge, the
    last one holds 1 as well. A bin without images has no accuracy, so it has no row. Columns:
    `bin_left`, `bin_right`, `bin_centre`; `confidence` (mean probability of the predicted class)
    and `accuracy` in the bin; `gap` (accuracy - confidence, negative where the model is too
    sure); `count` of images; `ece` (of the whole, the same in each row, so that a plot of this
    table alone can show it).

    Raises:
        InputError: when there is no image, or the input does not fit together.
    """
    probabilities_NC, labels_N = checked_probabilities(probabilities_NC, labels_N)
    confidence_N, predicted_N = probabilities_NC.max(dim=1)
    edges_E = binning(confidence_N.numpy(), n_bins)
    return _table(confidence_N.numpy(), (predicted_N == labels_N).double().numpy(), edges_E)


def _table(confidence_N: np.ndarray, correct_N: np.ndarray, edges_E: np.ndarray) -> pd.DataFrame:
    images = pd.DataFrame({"confidence": confidence_N, "accuracy": correct_N})
    bins = images.groupby(bin_indices(confidence_N, edges_E))
    return _with_ece(bins.mean(), bins.size(), edges_E)


def _with_ece(means: pd.DataFrame, counts: "pd.Series[int]", edges: np.ndarray) -> pd.DataFrame:
    left, right = edges[means.index], edges[means.index + 1]
    table = pd.DataFrame(
        {
            "bin_left": left,
            "bin_right": right,
            "bin_centre": (left + right) / 2,
            "confidence": means["confidence"].to_numpy(),
            "accuracy": means["accuracy"].to_numpy(),
            "gap": (means["accuracy"] - means["confidence"]).to_numpy(),
            "count": counts.to_numpy(),
        }
    )
    # torchmetrics has this measure, but in float32 and with a bin of its own for confidences of
    # exactly 1, so that it would disagree with the table; the tests compare the two elsewhere.
    return table.assign(ece=_mean_distance(table, "confidence"))


def _mean_distance(table: pd.DataFrame, column: str) -> float:
    distances = (table["accuracy"] - table[column]).abs()
    return float(np.average(distances, weights=table["count"]))
