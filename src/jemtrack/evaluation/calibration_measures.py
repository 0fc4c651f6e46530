"""The measures of a classifier's calibration as one object that a parameter file can name."""

from dataclasses import dataclass
from typing import Annotated

import pandas as pd
from pydantic import Field
from torch import Tensor

from jemtrack.evaluation.calibration import (
    accuracy,
    brier,
    ece,
    ece_bin_centre,
    nll,
    reliability_table,
)
from jemtrack.parameters import parameters


@dataclass(frozen=True)
class Calibration:
    """What was measured: one number a measure, and the rows of a reliability diagram."""

    metrics: dict[str, float]
    reliability: pd.DataFrame


@parameters
class CalibrationMeasures:
    """Measure accuracy, NLL, Brier score and both calibration errors of a classifier's logits.

    An object of one's own can take its place: any callable of `logits_NC` and `labels_N` that
    gives back a `Calibration`.
    """

    n_bins: Annotated[int, Field(ge=1)] = 20

    def __call__(self, logits_NC: Tensor, labels_N: Tensor) -> Calibration:
        """Measure on N images with C logits each; see `jemtrack.evaluation.calibration`.

        Raises:
            InputError: when there is no image, or the two do not fit together.
        """
        likelihood = nll(logits_NC, labels_N)  # first, as it refuses logits that are not finite
        probabilities_NC = logits_NC.detach().cpu().double().softmax(dim=1)
        return Calibration(
            metrics={
                "accuracy": accuracy(probabilities_NC, labels_N),
                "nll": likelihood,
                "brier": brier(probabilities_NC, labels_N),
                "ece": ece(probabilities_NC, labels_N, self.n_bins),
                "ece_bin_centre": ece_bin_centre(probabilities_NC, labels_N, self.n_bins),
            },
            reliability=reliability_table(probabilities_NC, labels_N, self.n_bins),
        )
