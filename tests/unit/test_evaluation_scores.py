"""What each image contributes, against scikit-learn and the measures that it adds up to."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from stated import accuracy, brier, classified, nll, stated

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.measures.scores import (
    brier_by_image,
    confusion,
    nll_by_image,
    top_k_accuracy,
)

few = at_most(30)


@few
@given(classified(limit=1000.0))
def test_values_an_image_average_to_the_measures(data):
    logits_NC, labels_N = data
    probabilities_NC = logits_NC.softmax(dim=1)

    metrics = CalibrationMeasures()(logits_NC, labels_N).metrics
    assert metrics["accuracy"] == accuracy(probabilities_NC, labels_N)
    assert metrics["nll"] == pytest.approx(nll(logits_NC, labels_N))
    assert np.isfinite(nll_by_image(logits_NC, labels_N)).all()
    assert metrics["brier"] == pytest.approx(brier(probabilities_NC, labels_N), abs=1e-15)
    assert brier_by_image(probabilities_NC, labels_N).max() <= 2


@few
@given(classified(min_classes=3), st.data())
def test_top_k_agrees_with_scikit_learn_where_no_two_are_equal(data, more):
    logits_NC, labels_N = data
    n_classes = logits_NC.shape[1]
    logits_NC = logits_NC.argsort(dim=1).double()
    k = more.draw(st.integers(1, n_classes - 1))

    theirs = top_k_accuracy_score(labels_N, logits_NC.numpy(), k=k, labels=range(n_classes))

    assert top_k_accuracy(logits_NC, labels_N, k) == pytest.approx(theirs)


@few
@given(stated())
def test_top_k_counts_the_first_of_equals_and_grows_to_1(data):
    probabilities_NC, labels_N = data
    by_k = [
        top_k_accuracy(probabilities_NC, labels_N, k + 1) for k in range(probabilities_NC.shape[1])
    ]

    assert by_k[0] == accuracy(probabilities_NC, labels_N)
    assert by_k == sorted(by_k)
    assert by_k[-1] == 1


@pytest.mark.parametrize("k", [0, 3])
def test_k_must_be_a_number_of_classes(k):
    with pytest.raises(InputError, match=f"k must be 1 to 2, the number of classes, got {k}"):
        top_k_accuracy(torch.zeros(1, 2), torch.tensor([0]), k)


@few
@given(stated())
def test_confusion_agrees_with_scikit_learn(data):
    probabilities_NC, labels_N = data
    predicted_N = probabilities_NC.argmax(dim=1)

    found = confusion(probabilities_NC, labels_N)

    classes = range(probabilities_NC.shape[1])
    counts = found.pivot(index="label", columns="predicted", values="count")
    assert (counts.to_numpy() == confusion_matrix(labels_N, predicted_N, labels=classes)).all()
