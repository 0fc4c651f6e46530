"""Check the input of the measures, which trust what they are given.

Letters: N images, C classes.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jemtrack.errors import InputError

# Wide enough for probabilities that were computed in float16, too narrow for logits to pass.
_PROBABILITY_TOLERANCE = 1e-2


@dataclass(frozen=True)
class LabelledLogits:
    """Checked logits and labels, and what the measures derive from them, on the CPU.

    Attributes:
        logits_NC: in float64.
        labels_N: in int64.
        probabilities_NC: the softmax of the logits.
        confidence_N: the probability of the most probable class.
        correct_N: whether that class is the label; the first of equals counts.

    Raises:
        InputError: when there is no image, a logit is not finite, or the two do not fit together.
    """

    logits_NC: Tensor
    labels_N: Tensor
    probabilities_NC: Tensor = field(init=False)
    confidence_N: np.ndarray = field(init=False)
    correct_N: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Check both, and derive the rest."""
        check_logits(self.logits_NC)
        _check_labels(self.labels_N, *self.logits_NC.shape)
        logits_NC, labels_N = self.logits_NC.detach().cpu().double(), self.labels_N.cpu().long()
        probabilities_NC = logits_NC.softmax(dim=1)
        confidence_N, predicted_N = probabilities_NC.max(dim=1)
        # A frozen object sets its own fields this way.
        vars(self).update(
            logits_NC=logits_NC,
            labels_N=labels_N,
            probabilities_NC=probabilities_NC,
            confidence_N=confidence_N.numpy(),
            correct_N=(predicted_N == labels_N).numpy(),
        )

    @classmethod
    def from_probabilities(cls, probabilities_NC: Tensor, labels_N: Tensor) -> "LabelledLogits":
        """Take the logarithms of probabilities (N, C) for logits; rounding may leave [0, 1].

        Raises:
            InputError: when a row does not sum to 1; see also the class.
        """
        check_logits(probabilities_NC)
        probabilities_NC = probabilities_NC.detach().cpu().double()
        sums_off = float((probabilities_NC.sum(dim=1) - 1).abs().max())
        off_by = max(sums_off, float(-probabilities_NC.min()))
        if off_by > _PROBABILITY_TOLERANCE:
            raise InputError(
                "probabilities_NC must be non-negative and sum to 1 over the classes of each "
                f"image, but are off by up to {off_by:.3g}: pass logits as they are"
            )
        smallest = torch.finfo(torch.float64).tiny
        return cls(probabilities_NC.clamp(smallest, 1).log(), labels_N)


def check_logits(logits_NC: Tensor) -> None:
    """Raise InputError unless there are finite scores of one image and two classes or more."""
    if logits_NC.ndim != 2 or logits_NC.shape[1] < 2:
        raise InputError(
            "expected one row of scores an image, and two classes or more; "
            f"got scores of shape {tuple(logits_NC.shape)}"
        )
    if len(logits_NC) == 0:
        raise InputError("there are no images to measure on: choose a split that holds some")
    if n_bad := int((~logits_NC.isfinite()).any(dim=1).sum()):
        raise InputError(
            f"{n_bad} of {len(logits_NC)} images have scores that are infinite or NaN: "
            "the model has diverged; train it with a lower learning rate"
        )


def _check_labels(labels_N: Tensor, n_images: int, n_classes: int) -> None:
    if labels_N.shape != (n_images,):
        raise InputError(
            f"expected one label an image, got {n_images} images and labels of shape "
            f"{tuple(labels_N.shape)}"
        )
    if labels_N.is_floating_point() or labels_N.is_complex() or labels_N.dtype == torch.bool:
        raise InputError(f"labels_N must be whole numbers, got {labels_N.dtype}")
    if labels_N.min() < 0 or labels_N.max() >= n_classes:
        raise InputError(
            f"labels_N must be from 0 to {n_classes - 1}, as there are {n_classes} classes, "
            f"got {int(labels_N.min())} to {int(labels_N.max())}: leave out what has no label"
        )
