"""The measures of a classifier's calibration as one object that a parameter file can name."""

from dataclasses import dataclass
from typing import Annotated

import pandas as pd
from pydantic import Field
from torch import Tensor

from jemtrack.evaluation.measures.binning import equal_mass
from jemtrack.evaluation.measures.brier_decomposition import brier_decomposition
from jemtrack.evaluation.measures.calibration import (
    accuracy,
    brier,
    ece,
    ece_bin_centre,
    ece_class_wise,
    nll,
    reliability_table,
)
from jemtrack.evaluation.measures.scores import correct, top_k_accuracy
from jemtrack.evaluation.measures.selective import aurc, excess_aurc
from jemtrack.evaluation.statistics.calibration_interval import with_intervals
from jemtrack.parameters import parameters


@dataclass(frozen=True)
class Calibration:
    """What was measured: one number a measure, and the rows of a reliability diagram."""

    metrics: dict[str, float]
    reliability: pd.DataFrame


@parameters
class CalibrationMeasures:
    """Measure how right and how honest a classifier's logits are.

    `n_bins` are those of all calibration errors; `top_k_accuracy` looks at the `top_k` most
    probable classes. An object of one's own can take its place: any callable of `logits_NC` and
    `labels_N` that gives back a `Calibration`.
    """

    n_bins: Annotated[int, Field(ge=1)] = 20
    top_k: Annotated[int, Field(ge=1)] = 3

    def __call__(self, logits_NC: Tensor, labels_N: Tensor) -> Calibration:
        """Measure on N images with C logits each; see `jemtrack.evaluation.measures.calibration`.

        Raises:
            InputError: when there is no image, or the two do not fit together.
        """
        likelihood = nll(logits_NC, labels_N)  # first, as it refuses logits that are not finite
        probabilities_NC = logits_NC.detach().cpu().double().softmax(dim=1)
        confidence_N = probabilities_NC.max(dim=1).values
        n_classes, right_N = logits_NC.shape[1], correct(logits_NC, labels_N)
        brier_parts = brier_decomposition(probabilities_NC, labels_N, self.n_bins)
        given = (probabilities_NC, labels_N, self.n_bins)
        return Calibration(
            metrics={
                "accuracy": accuracy(probabilities_NC, labels_N),
                "top_k_accuracy": top_k_accuracy(logits_NC, labels_N, min(self.top_k, n_classes)),
                "nll": likelihood,
                "brier": brier(probabilities_NC, labels_N),
                "brier_reliability": brier_parts.reliability,
                "brier_resolution": brier_parts.resolution,
                "ece": ece(*given),
                "ece_bin_centre": ece_bin_centre(*given),
                "ece_equal_mass": ece(*given, equal_mass),
                "ece_class_wise": ece_class_wise(*given),
                "aurc": aurc(confidence_N, right_N),
                "excess_aurc": excess_aurc(confidence_N, right_N),
            },
            reliability=with_intervals(reliability_table(*given)),
        )
