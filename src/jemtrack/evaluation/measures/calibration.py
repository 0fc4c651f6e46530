"""How far a classifier's confidence can be trusted: the reliability table and its errors.

The calibration error has one implementation, `calibration_error` of a `reliability_table`. How
sure such figures are: `jemtrack.evaluation.statistics.calibration_interval`. Input is float64 and
trusted: see `jemtrack.evaluation.measures.inputs.LabelledLogits`.

Guo et al., "On Calibration of Modern Neural Networks" (2017), for the calibration error and the
reliability diagram. Letters: N images, C classes.
"""

import numpy as np
import pandas as pd
from torch import Tensor

from jemtrack.evaluation.measures.binning import Binning, bin_indices, equal_width

N_BINS = 20


def reliability_table(
    confidence_N: np.ndarray,
    correct_N: np.ndarray,
    n_bins: int = N_BINS,
    binning: Binning = equal_width,
) -> pd.DataFrame:
    """Compute one row for each bin of confidence that holds an image, in ascending order.

    The `n_bins` bins are of equal width, or as `binning` has them; each holds its left edge, the
    last one holds 1 as well. A bin without images has no accuracy, so it has no row. Columns:
    `bin_left`, `bin_right`, `bin_centre`; `confidence` and `accuracy`, the means in the bin;
    `gap` (accuracy - confidence, negative where the model is overconfident); `count` of images;
    `ece` (of the whole, the same in each row, so that a plot of this table alone can show it).

    Raises:
        InputError: when `n_bins` is below 1.
    """
    edges_E = binning(confidence_N, n_bins)
    images = pd.DataFrame({"confidence": confidence_N, "accuracy": correct_N.astype(np.float64)})
    bins = images.groupby(bin_indices(confidence_N, edges_E))
    means = bins.mean()
    left, right = edges_E[means.index], edges_E[means.index + 1]
    table = pd.DataFrame(
        {
            "bin_left": left,
            "bin_right": right,
            "bin_centre": (left + right) / 2,
            "confidence": means["confidence"].to_numpy(),
            "accuracy": means["accuracy"].to_numpy(),
            "gap": (means["accuracy"] - means["confidence"]).to_numpy(),
            "count": bins.size().to_numpy(),
        }
    )
    # torchmetrics has this measure, but in float32 and with a bin of its own for confidences of
    # exactly 1, so that it would disagree with the table; the tests compare the two elsewhere.
    return table.assign(ece=calibration_error(table))


def calibration_error(table: pd.DataFrame, expected: str = "confidence") -> float:
    """Compute the mean over images of |accuracy - mean confidence| of their bin: the ECE.

    With few images it is above the truth: that of a perfectly calibrated model is more than 0.
    `expected="bin_centre"` is the older form, in which a bin's centre stands for its confidence:
    it can be off by half a bin, and a perfect predictor has 1 / (2 n_bins), not 0.
    """
    distances = (table["accuracy"] - table[expected]).abs()
    return float(np.average(distances, weights=table["count"]))


def class_wise_calibration_error(
    probabilities_NC: Tensor, labels_N: Tensor, n_bins: int = N_BINS, binning: Binning = equal_width
) -> float:
    """Average over the classes the calibration error of each class's probability.

    It shows a model that is overconfident of one class and underconfident of another. Kull et
    al., "Beyond temperature scaling" (2019), equation 3; Nixon et al., "Measuring Calibration in
    Deep Learning" (2019), call it the static calibration error.
    """
    errors = [
        calibration_error(
            reliability_table(probability_N, (labels_N == class_).numpy(), n_bins, binning)
        )
        for class_, probability_N in enumerate(probabilities_NC.T.numpy())
    ]
    return float(np.mean(errors))
