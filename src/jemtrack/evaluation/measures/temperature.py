"""Temperature scaling: one number that corrects a classifier's confidence.

Guo et al., "On Calibration of Modern Neural Networks" (2017), section 4.2: logits are divided by
T > 0, fitted on images that were not trained on. It changes no prediction, only the confidence.

Letters: N images, C classes.
"""

import math

import torch
from torch import Tensor

from jemtrack.evaluation.measures.calibration import N_BINS, calibration_error, reliability_table
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.measures.scores import brier_by_image, nll_by_image

LOWEST, HIGHEST = 1e-2, 1e2


def fit_temperature(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Find the T in [0.01, 100] that minimises the mean NLL of logits / T, float64.

    On these images the NLL at T is never above that at 1. The NLL is convex in 1 / T, so its
    slope has at most one root. Where every label has the highest logit, the best T is the lowest;
    where the logits are worse than none, the highest; where they say nothing, 1.
    """
    from scipy.optimize import brentq  # takes a while to import

    logits_NC = logits_NC - logits_NC.gather(1, labels_N[:, None])
    if not logits_NC.any():
        return 1.0

    def slope(log_temperature: float) -> float:
        """Differentiate the mean NLL by 1 / T."""
        probabilities_NC = (logits_NC * math.exp(-log_temperature)).softmax(dim=1)
        return float((probabilities_NC * logits_NC).sum(dim=1).mean())

    low, high = math.log(LOWEST), math.log(HIGHEST)
    if slope(low) <= 0:
        found = LOWEST
    elif slope(high) >= 0:
        found = HIGHEST
    else:
        found = math.exp(brentq(slope, low, high, xtol=1e-10))
    candidates = (1.0, found)  # in this order: of equals the first is taken
    return min(candidates, key=lambda each: _nll(logits_NC / each))


def scaled_measures(
    valid: LabelledLogits, measured: LabelledLogits, n_bins: int = N_BINS
) -> dict[str, float]:
    """Fit the temperature on the validation images, and measure the others at it."""
    temperature = fit_temperature(valid.logits_NC, valid.labels_N)
    scaled = LabelledLogits(measured.logits_NC / temperature, measured.labels_N)
    table = reliability_table(scaled.confidence_N, scaled.correct_N, n_bins)
    return {
        "temperature": temperature,
        "nll_at_temperature": float(nll_by_image(scaled.logits_NC, scaled.labels_N).mean()),
        "brier_at_temperature": float(
            brier_by_image(scaled.probabilities_NC, scaled.labels_N).mean()
        ),
        "ece_at_temperature": calibration_error(table),
    }


def _nll(relative_NC: Tensor) -> float:
    """Compute the mean NLL from logits less the label's own."""
    return float(torch.logsumexp(relative_NC, dim=1).mean())
