"""What each image contributes to NLL and Brier score; top-k accuracy; confusion.

The mean of such values is the measure itself; the values are what bootstrap and paired tests
resample. Input is float64 and trusted: see `LabelledLogits`. Letters: N images, C classes.
"""

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn import functional

from jemtrack.errors import InputError


def nll_by_image(logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
    """Compute -log p(label) of each image, in nats, (N,).

    It takes logits, because the logarithm of a probability that was rounded to 0 is infinite.
    """
    nll_N: np.ndarray = functional.cross_entropy(logits_NC, labels_N, reduction="none").numpy()
    return nll_N


def brier_by_image(probabilities_NC: Tensor, labels_N: Tensor) -> np.ndarray:
    """Compute each image's squared errors, summed over the classes, 0 to 2, (N,).

    Brier, "Verification of forecasts expressed in terms of probability" (1950), has the score in
    this form; with two classes it is twice the form that uses one class alone.
    """
    truth_NC = functional.one_hot(labels_N, probabilities_NC.shape[1])
    brier_N: np.ndarray = (probabilities_NC - truth_NC).square().sum(dim=1).numpy()
    return brier_N


def top_k_accuracy(scores_NC: Tensor, labels_N: Tensor, k: int) -> float:
    """Compute the share of images whose label is among the `k` highest scores.

    The first of equals counts.

    Raises:
        InputError: when `k` is not 1 to C.
    """
    n_classes = scores_NC.shape[1]
    if not 1 <= k <= n_classes:
        raise InputError(f"k must be 1 to {n_classes}, the number of classes, got {k}")
    highest_first_NC = scores_NC.sort(dim=1, descending=True, stable=True).indices
    return float((highest_first_NC[:, :k] == labels_N[:, None]).any(dim=1).double().mean())


def confusion(scores_NC: Tensor, labels_N: Tensor) -> pd.DataFrame:
    """Count the images of each `label` and `predicted` class: C * C rows with their `count`."""
    n_classes = scores_NC.shape[1]
    cells_N = labels_N.numpy() * n_classes + scores_NC.argmax(dim=1).numpy()
    label, predicted = np.indices((n_classes, n_classes)).reshape(2, -1)
    counts = np.bincount(cells_N, minlength=n_classes**2)
    return pd.DataFrame({"label": label, "predicted": predicted, "count": counts})
