"""How far a classifier's probabilities can be believed: accuracy, NLL, Brier score, ECE.

Legend: N images, C classes. All is computed on the CPU in float64, whatever the input's type.

Guo et al., "On Calibration of Modern Neural Networks" (2017), for the calibration error and the
reliability diagram; Brier, "Verification of forecasts expressed in terms of probability" (1950).
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from jemtrack.errors import InputError

# Wide enough for probabilities that were computed in float16, too narrow for logits to pass.
_PROBABILITY_TOLERANCE = 1e-2


def accuracy(probabilities_NC: Tensor, labels_N: Tensor) -> float:
    """Fraction of images whose most probable class is their label; the first of equals counts.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    probabilities_NC, labels_N = _checked_probabilities(probabilities_NC, labels_N)
    return float((probabilities_NC.argmax(dim=1) == labels_N).double().mean())


def nll(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Mean negative log-likelihood of the labels, in nats.

    It takes logits, because the logarithm of a probability that was rounded to 0 is infinite.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    logits_NC, labels_N = _checked(logits_NC, labels_N)
    return float(torch.nn.functional.cross_entropy(logits_NC, labels_N))


def brier(probabilities_NC: Tensor, labels_N: Tensor) -> float:
    """Brier's own form of his score: squared errors summed over classes, mean over images.

    It lies between 0 and 2; with two classes it is twice the form that looks at one class alone.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    probabilities_NC, labels_N = _checked_probabilities(probabilities_NC, labels_N)
    truth_NC = torch.nn.functional.one_hot(labels_N, probabilities_NC.shape[1])
    return float((probabilities_NC - truth_NC).square().sum(dim=1).mean())


def ece(probabilities_NC: Tensor, labels_N: Tensor, n_bins: int = 20) -> float:
    """Mean over images of |accuracy - mean confidence| of their bin: expected calibration error.

    The bins are those of `reliability_table`.

    Raises:
        InputError: when there is no image, or the input does not fit together.
    """
    table = reliability_table(probabilities_NC, labels_N, n_bins)
    return float(table["ece"].iloc[0])


def ece_bin_centre(probabilities_NC: Tensor, labels_N: Tensor, n_bins: int = 20) -> float:
    """Calibration error of the older form, which takes a bin's centre for its mean confidence.

    It can be off the standard form by half a bin: a perfect predictor has 1 / (2 n_bins), not 0.

    Raises:
        InputError: when there is no image, or the input does not fit together.
    """
    table = reliability_table(probabilities_NC, labels_N, n_bins)
    return _mean_distance(table, "bin_centre")


def reliability_table(probabilities_NC: Tensor, labels_N: Tensor, n_bins: int = 20) -> pd.DataFrame:
    """One row for each bin of confidence that holds an image, in ascending order.

    The `n_bins` bins are of equal width; each holds its left edge, the last one holds 1 as well.
    A bin without images has no accuracy, so it has no row. Columns: `bin_left`, `bin_right`,
    `bin_centre`; `confidence` (mean probability of the predicted class) and `accuracy` in the bin;
    `gap` (accuracy - confidence, negative where the model is too sure); `count` of images; `ece`
    (of the whole, the same in each row, so that a plot of this table alone can show it).

    Raises:
        InputError: when there is no image, or the input does not fit together.
    """
    if n_bins < 1:
        raise InputError(f"n_bins must be >= 1, got {n_bins}: use 20, as is usual")
    probabilities_NC, labels_N = _checked_probabilities(probabilities_NC, labels_N)
    confidence_N, predicted_N = probabilities_NC.max(dim=1)
    # Not linspace: its 0.15000000000000002 would push a confidence of 0.15 into the bin below.
    edges = np.arange(n_bins + 1) / n_bins
    bin_N = np.searchsorted(edges[1:-1], confidence_N.numpy(), side="right")
    images = pd.DataFrame(
        {"confidence": confidence_N.numpy(), "accuracy": (predicted_N == labels_N).double().numpy()}
    )
    bins = images.groupby(bin_N)
    return _with_ece(bins.mean(), bins.size(), edges)


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


def _checked_probabilities(probabilities_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    probabilities_NC, labels_N = _checked(probabilities_NC, labels_N)
    off_by = max(
        float((probabilities_NC.sum(dim=1) - 1).abs().max()), float(-probabilities_NC.min())
    )
    if off_by > _PROBABILITY_TOLERANCE:
        raise InputError(
            "probabilities_NC must be non-negative and sum to 1 over the classes of each image, "
            f"but are off by up to {off_by:.3g}: pass logits through softmax first"
        )
    return probabilities_NC.clamp(0, 1), labels_N


def _checked(scores_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    if scores_NC.ndim != 2 or labels_N.shape != scores_NC.shape[:1] or scores_NC.shape[1] < 2:
        raise InputError(
            "expected one row of scores an image, two classes or more, and one label an image; "
            f"got scores of shape {tuple(scores_NC.shape)}, labels of {tuple(labels_N.shape)}"
        )
    if len(labels_N) == 0:
        raise InputError("there are no images to measure on: choose a split that holds some")
    if labels_N.is_floating_point() or labels_N.is_complex() or labels_N.dtype == torch.bool:
        raise InputError(f"labels_N must be whole numbers, got {labels_N.dtype}")
    n_classes = scores_NC.shape[1]
    if labels_N.min() < 0 or labels_N.max() >= n_classes:
        raise InputError(
            f"labels_N must be from 0 to {n_classes - 1}, as there are {n_classes} classes, "
            f"got {int(labels_N.min())} to {int(labels_N.max())}: leave out what has no label"
        )
    if not scores_NC.isfinite().all():
        n_bad = int((~scores_NC.isfinite()).any(dim=1).sum())
        raise InputError(
            f"{n_bad} of {len(labels_N)} images have scores that are infinite or NaN: "
            "the model has diverged; train it with a lower learning rate"
        )
    return scores_NC.detach().cpu().double(), labels_N.detach().cpu().long()
