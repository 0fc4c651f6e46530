"""The measures of a classifier's calibration as one object that a parameter file can name."""

from dataclasses import dataclass
from typing import Annotated

import pandas as pd
from pydantic import Field
from torch import Tensor

from jemtrack.evaluation.measures.binning import equal_mass
from jemtrack.evaluation.measures.brier_decomposition import brier_decomposition
from jemtrack.evaluation.measures.calibration import (
    N_BINS,
    calibration_error,
    class_wise_calibration_error,
    reliability_table,
)
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.measures.scores import brier_by_image, nll_by_image, top_k_accuracy
from jemtrack.evaluation.measures.selective import aurc, excess_aurc
from jemtrack.evaluation.statistics.calibration_interval import with_intervals
from jemtrack.parameters import parameters


@dataclass(frozen=True)
class Calibration:
    """One number a measure, and a `reliability_table` with the interval of each bin."""

    metrics: dict[str, float]
    reliability: pd.DataFrame


@parameters
class CalibrationMeasures:
    """Measures a classifier's accuracy and calibration on its logits.

    `n_bins` are those of all calibration errors; `top_k_accuracy` uses the `top_k` most probable
    classes. An object of one's own can take its place: any callable of `logits_NC` and `labels_N`
    that returns a `Calibration`.
    """

    n_bins: Annotated[int, Field(ge=1)] = N_BINS
    top_k: Annotated[int, Field(ge=1)] = 3

    def __call__(self, logits_NC: Tensor, labels_N: Tensor) -> Calibration:
        """Measure on N images with C logits each, of any floating type.

        Raises:
            InputError: when there is no image, a logit is not finite, or the two do not fit
                together.
        """
        checked = LabelledLogits(logits_NC, labels_N)
        logits_NC, labels_N = checked.logits_NC, checked.labels_N
        of_images = (checked.confidence_N, checked.correct_N)
        of_classes = (checked.probabilities_NC, labels_N)
        table = reliability_table(*of_images, self.n_bins)
        brier_parts = brier_decomposition(*of_classes, self.n_bins)
        top_k = min(self.top_k, logits_NC.shape[1])
        return Calibration(
            metrics={
                "accuracy": float(checked.correct_N.mean()),
                "top_k_accuracy": top_k_accuracy(logits_NC, labels_N, top_k),
                "nll": float(nll_by_image(logits_NC, labels_N).mean()),
                "brier": float(brier_by_image(*of_classes).mean()),
                "brier_reliability": brier_parts.reliability,
                "brier_resolution": brier_parts.resolution,
                "ece": calibration_error(table),
                "ece_bin_centre": calibration_error(table, "bin_centre"),
                "ece_equal_mass": calibration_error(
                    reliability_table(*of_images, self.n_bins, equal_mass)
                ),
                "ece_class_wise": class_wise_calibration_error(*of_classes, self.n_bins),
                "aurc": aurc(*of_images),
                "excess_aurc": excess_aurc(*of_images),
            },
            reliability=with_intervals(table),
        )
