"""What the measures take, checked: scores, labels, probabilities; all in float64 on the CPU.

Letters: N images, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from jemtrack.errors import InputError

# Wide enough for probabilities that were computed in float16, too narrow for logits to pass.
_PROBABILITY_TOLERANCE = 1e-2


def checked_probabilities(probabilities_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Give probabilities (N, C) and labels (N,) back in float64 and int64, on the CPU.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    probabilities_NC, labels_N = checked_scores(probabilities_NC, labels_N)
    off_by = max(
        float((probabilities_NC.sum(dim=1) - 1).abs().max()), float(-probabilities_NC.min())
    )
    if off_by > _PROBABILITY_TOLERANCE:
        raise InputError(
            "probabilities_NC must be non-negative and sum to 1 over the classes of each image, "
            f"but are off by up to {off_by:.3g}: pass logits through softmax first"
        )
    return probabilities_NC.clamp(0, 1), labels_N


def checked_scores(scores_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Give scores, such as logits, (N, C) and labels (N,) back in float64 and int64, on the CPU.

    Raises:
        InputError: when there is no image, a score is not finite, or the two do not fit together.
    """
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


def checked_values(what: str, *values: Tensor | np.ndarray) -> list[np.ndarray]:
    """Give one-dimensional values of equal length back in float64; `what` names them in an error.

    Raises:
        InputError: when there are none, one is NaN, or they have another shape.
    """
    arrays = [np.asarray(torch.as_tensor(each).detach().cpu(), dtype=np.float64) for each in values]
    shapes = sorted({each.shape for each in arrays})
    if len(shapes) != 1 or len(shapes[0]) != 1:
        raise InputError(f"{what} must be one number an image, got the shapes {shapes}")
    if shapes[0] == (0,):
        raise InputError(f"{what}: there are no images to measure on")
    if any(np.isnan(each).any() for each in arrays):
        raise InputError(f"{what} must be numbers, got NaN: the model has diverged")
    return arrays
