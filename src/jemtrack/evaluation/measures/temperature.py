"""Temperature scaling: one number that makes a classifier as sure as it should be.

Guo et al., "On Calibration of Modern Neural Networks" (2017), section 4.2: logits are divided by
T > 0, fitted on images that were not trained on. It changes no prediction, only how sure it is.

Letters: N images, C classes.
"""

import math

import torch
from torch import Tensor

from jemtrack.evaluation.measures.calibration import brier, ece, nll
from jemtrack.evaluation.measures.inputs import checked_scores

LOWEST, HIGHEST = 1e-2, 1e2


def fit_temperature(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Give the T in [0.01, 100] that makes the mean NLL of logits / T least.

    On these images the NLL at T is never above that at 1. The NLL is convex in 1 / T, so its
    slope has one root, if any. Where all is right by a margin the best T is the lowest, where
    the logits are worse than none the highest, and where they say nothing it is 1.

    Raises:
        InputError: when there is no image, or the two do not fit together.
    """
    from scipy.optimize import brentq  # takes a while to import

    logits_NC, labels_N = checked_scores(logits_NC, labels_N)
    logits_NC = logits_NC - logits_NC.gather(1, labels_N[:, None])
    if not logits_NC.any():
        return 1.0

    def slope(log_temperature: float) -> float:
        """Give the derivative of the mean NLL by 1 / T."""
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
    valid_logits_NC: Tensor,
    valid_labels_N: Tensor,
    logits_NC: Tensor,
    labels_N: Tensor,
    n_bins: int = 20,
) -> dict[str, float]:
    """Give the temperature that the validation images ask for, and what the others have at it.

    Raises:
        InputError: when there is no image, or logits and labels do not fit together.
    """
    temperature = fit_temperature(valid_logits_NC, valid_labels_N)
    logits_NC, labels_N = checked_scores(logits_NC, labels_N)
    scaled_NC = logits_NC / temperature
    probabilities_NC = scaled_NC.softmax(dim=1)
    return {
        "temperature": temperature,
        "nll_at_temperature": nll(scaled_NC, labels_N),
        "brier_at_temperature": brier(probabilities_NC, labels_N),
        "ece_at_temperature": ece(probabilities_NC, labels_N, n_bins),
    }


def _nll(relative_NC: Tensor) -> float:
    """Give the mean NLL from logits less the label's own."""
    return float(torch.logsumexp(relative_NC, dim=1).mean())
