"""Probabilities and labels: random, tied, degenerate; the measures of them."""

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jemtrack.evaluation.measures.calibration import calibration_error
from jemtrack.evaluation.measures.calibration import reliability_table as table_of_confidence
from jemtrack.evaluation.measures.scores import brier_by_image, nll_by_image


@st.composite
def classified(draw, min_classes=2, max_classes=6, limit=8.0):
    """Logits and labels of a few images."""
    n_images = draw(st.integers(1, 40))
    n_classes = draw(st.integers(min_classes, max_classes))
    shape = (n_images, n_classes)
    logits_NC = draw(arrays(np.float64, shape, elements=st.floats(-limit, limit)))
    labels_N = draw(arrays(np.int64, n_images, elements=st.integers(0, n_classes - 1)))
    return torch.from_numpy(logits_NC), torch.from_numpy(labels_N)


@st.composite
def stated(draw, max_classes=5):
    """Probabilities and labels: of logits, with many ties, or exactly 0 and 1.

    All may be right, all wrong, one class missing, and there may be one image.
    """
    logits_NC, labels_N = draw(classified(max_classes=max_classes))
    kind = draw(st.sampled_from(["random", "tied", "one hot"]))
    if kind == "tied":
        logits_NC = logits_NC.sign()
    probabilities_NC = logits_NC.softmax(dim=1)
    if kind == "one hot":
        n_classes = logits_NC.shape[1]
        probabilities_NC = torch.eye(n_classes, dtype=torch.float64)[logits_NC.argmax(dim=1)]
    labels = {
        "any": labels_N,
        "one class": labels_N * 0,
        "all right": probabilities_NC.argmax(dim=1),
        "all wrong": (probabilities_NC.argmax(dim=1) + 1) % logits_NC.shape[1],
    }
    return probabilities_NC, labels[draw(st.sampled_from(sorted(labels)))]


def correct(scores_NC, labels_N):
    return (scores_NC.argmax(dim=1) == labels_N).numpy()


def accuracy(probabilities_NC, labels_N):
    return correct(probabilities_NC, labels_N).mean()


def nll(logits_NC, labels_N):
    return nll_by_image(logits_NC, labels_N).mean()


def brier(probabilities_NC, labels_N):
    return brier_by_image(probabilities_NC, labels_N).mean()


def reliability_table(probabilities_NC, labels_N, *bins):
    confidence_N = probabilities_NC.amax(dim=1).numpy()
    return table_of_confidence(confidence_N, correct(probabilities_NC, labels_N), *bins)


def ece(probabilities_NC, labels_N, *bins):
    return calibration_error(reliability_table(probabilities_NC, labels_N, *bins))


def ece_bin_centre(probabilities_NC, labels_N, *bins):
    return calibration_error(reliability_table(probabilities_NC, labels_N, *bins), "bin_centre")
