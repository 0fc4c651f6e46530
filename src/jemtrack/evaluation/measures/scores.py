"""What each image contributes to accuracy, NLL and Brier score; top-k accuracy; confusion.

An average of such values is the measure itself; the values are what bootstrap and paired tests
resample. All is computed on the CPU in float64. Letters: N images, C classes.
"""

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn import functional

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.inputs import checked_probabilities, checked_scores


def correct(scores_NC: Tensor, labels_N: Tensor) -> np.ndarray:
    """Say of each image whether the class of the highest score is its label, as bool (N,).

    Logits and probabilities serve alike; the first of equals counts.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    scores_NC, labels_N = checked_scores(scores_NC, labels_N)
    found: np.ndarray = (scores_NC.argmax(dim=1) == labels_N).numpy()
    return found


def nll_by_image(logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
    """Give -log p(label) of each image, in nats, (N,); finite, as it takes logits.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    logits_NC, labels_N = checked_scores(logits_NC, labels_N)
    found: np.ndarray = functional.cross_entropy(logits_NC, labels_N, reduction="none").numpy()
    return found


def brier_by_image(probabilities_NC: Tensor, labels_N: Tensor) -> np.ndarray:
    """Give the squared errors of each image, summed over the classes, 0 to 2, (N,).

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    probabilities_NC, labels_N = checked_probabilities(probabilities_NC, labels_N)
    truth_NC = functional.one_hot(labels_N, probabilities_NC.shape[1])
    found: np.ndarray = (probabilities_NC - truth_NC).square().sum(dim=1).numpy()
    return found


def top_k_accuracy(scores_NC: Tensor, labels_N: Tensor, k: int) -> float:
    """Fraction of images whose label is among the `k` highest scores; the first of equals counts.

    Raises:
        InputError: when there is no image, the two do not fit together, or `k` is not 1 to C.
    """
    scores_NC, labels_N = checked_scores(scores_NC, labels_N)
    n_classes = scores_NC.shape[1]
    if not 1 <= k <= n_classes:
        raise InputError(f"k must be 1 to {n_classes}, the number of classes, got {k}")
    highest_first_NC = scores_NC.sort(dim=1, descending=True, stable=True).indices
    return float((highest_first_NC[:, :k] == labels_N[:, None]).any(dim=1).double().mean())


def confusion(scores_NC: Tensor, labels_N: Tensor) -> pd.DataFrame:
    """Count the images of each label (rows) that were taken for each class (columns), (C, C).

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    scores_NC, labels_N = checked_scores(scores_NC, labels_N)
    n_classes = scores_NC.shape[1]
    cells_N = labels_N.numpy() * n_classes + scores_NC.argmax(dim=1).numpy()
    counts = np.bincount(cells_N, minlength=n_classes**2).reshape(n_classes, n_classes)
    classes = pd.RangeIndex(n_classes)
    return pd.DataFrame(counts, index=classes.rename("label"), columns=classes.rename("predicted"))
