"""What a model said of a set of images: computed once, measured by all.

Letters: N images, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from jemtrack.evaluation.outlier_scores import outlier_scores

SCORES = ("log_density", "max_probability", "negative_entropy", "approximate_mass", "mahalanobis")


@dataclass(frozen=True)
class ModelOutputs:
    """Of N images: logits (N, C), log p~(x), approximate mass and Mahalanobis score (N,)."""

    logits_NC: Tensor
    log_density_N: Tensor
    approximate_mass_N: Tensor
    mahalanobis_N: Tensor

    def scores(self) -> dict[str, Tensor]:
        """Give the `SCORES` of each image, (N,): higher is more alike to the training images."""
        found = outlier_scores(self.logits_NC, self.log_density_N)
        measured = {"approximate_mass": self.approximate_mass_N, "mahalanobis": self.mahalanobis_N}
        return {**found, **{name: each.detach().cpu().double() for name, each in measured.items()}}


@dataclass(frozen=True)
class Look:
    """What one model said of all image sets of an evaluation.

    Attributes:
        measured: the labelled images that the measures are of.
        train: some of the training images.
        valid_logits_NC: of the validation images, the logits alone; None where there are none.
        outliers: by partner, images that no model was trained on.
    """

    measured: ModelOutputs
    train: ModelOutputs
    valid_logits_NC: Tensor | None
    outliers: Mapping[str, ModelOutputs]
