"""The measures of calibration against closed forms and independent implementations."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from profiles import at_most
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from stated import classified
from torchmetrics.functional.classification import multiclass_calibration_error

from jemtrack.evaluation.measures.calibration import (
    accuracy,
    brier,
    ece,
    ece_bin_centre,
    nll,
    reliability_table,
)

few = at_most(40)

COLUMNS = ["bin_left", "bin_right", "bin_centre", "confidence", "accuracy", "gap", "count", "ece"]


def calibration_error_by_loop(probabilities_NC, labels_N, n_bins, use_centre):
    """The definition, image by image: each bin holds its left edge, the last one 1 as well."""
    confidence = [max(row) for row in probabilities_NC.tolist()]
    correct = (probabilities_NC.numpy().argmax(axis=1) == labels_N.numpy()).tolist()
    total = 0.0
    for bin_ in range(n_bins):
        left, right = bin_ / n_bins, (bin_ + 1) / n_bins
        last = bin_ == n_bins - 1
        inside = [i for i, c in enumerate(confidence) if left <= c and (c < right or last)]
        if inside:
            mean_correct = sum(correct[i] for i in inside) / len(inside)
            mean_confidence = sum(confidence[i] for i in inside) / len(inside)
            expected = (left + right) / 2 if use_centre else mean_confidence
            total += len(inside) / len(confidence) * abs(mean_correct - expected)
    return total


@few
@given(classified())
def test_simple_measures_agree_with_scikit_learn(data):
    logits_NC, labels_N = data
    probabilities_NC = logits_NC.softmax(dim=1)
    classes = range(logits_NC.shape[1])
    predicted = probabilities_NC.numpy().argmax(axis=1)

    assert accuracy(probabilities_NC, labels_N) == accuracy_score(labels_N, predicted)
    assert nll(logits_NC, labels_N) == pytest.approx(
        log_loss(labels_N, probabilities_NC.numpy(), labels=classes), abs=1e-12
    )


@few
@given(classified())
def test_brier_is_the_sum_over_classes(data):
    logits_NC, labels_N = data
    rows = logits_NC.softmax(dim=1).tolist()
    expected = [
        sum((p - (c == label)) ** 2 for c, p in enumerate(row))
        for row, label in zip(rows, labels_N.tolist(), strict=True)
    ]

    measured = brier(logits_NC.softmax(dim=1), labels_N)

    assert measured == pytest.approx(sum(expected) / len(expected), abs=1e-12)
    assert 0 <= measured <= 2


@few
@given(classified(max_classes=2))
def test_brier_of_two_classes_is_twice_that_of_one(data):
    logits_NC, labels_N = data
    probabilities_NC = logits_NC.softmax(dim=1)
    of_one = brier_score_loss(labels_N.numpy(), probabilities_NC[:, 1].numpy(), pos_label=1)

    assert brier(probabilities_NC, labels_N) == pytest.approx(2 * of_one, abs=1e-12)


@few
@given(classified(), st.integers(1, 30))
def test_calibration_errors_are_their_definition(data, n_bins):
    logits_NC, labels_N = data
    probabilities_NC = logits_NC.softmax(dim=1)

    for measure, use_centre in ((ece, False), (ece_bin_centre, True)):
        expected = calibration_error_by_loop(probabilities_NC, labels_N, n_bins, use_centre)
        measured = measure(probabilities_NC, labels_N, n_bins)
        assert measured == pytest.approx(expected, abs=1e-12)
        assert 0 <= measured <= 1


@few
@given(classified(), st.integers(1, 30))
def test_ece_agrees_with_torchmetrics_off_the_edges(data, n_bins):
    """On an edge float32 may choose the other bin; torchmetrics gives exactly 1 its own bin."""
    logits_NC, labels_N = data
    probabilities_NC = logits_NC.softmax(dim=1)
    in_bins_N = probabilities_NC.max(dim=1).values * n_bins
    assume((in_bins_N - in_bins_N.round()).abs().min() > 1e-4)

    theirs = multiclass_calibration_error(
        probabilities_NC, labels_N, num_classes=logits_NC.shape[1], n_bins=n_bins, norm="l1"
    )

    assert ece(probabilities_NC, labels_N, n_bins) == pytest.approx(float(theirs), abs=1e-5)


@few
@given(classified(), st.integers(1, 30))
def test_forms_differ_by_half_a_bin_at_most(data, n_bins):
    logits_NC, labels_N = data
    probabilities_NC = logits_NC.softmax(dim=1)

    difference = ece(probabilities_NC, labels_N, n_bins) - ece_bin_centre(
        probabilities_NC, labels_N, n_bins
    )

    assert abs(difference) <= 0.5 / n_bins + 1e-12


@few
@given(classified(limit=1000.0), st.integers(1, 30))
def test_table_holds_every_image_once_and_gives_the_measures_back(data, n_bins):
    logits_NC, labels_N = data
    probabilities_NC = logits_NC.softmax(dim=1)

    table = reliability_table(probabilities_NC, labels_N, n_bins)

    share = table["count"] / len(labels_N)
    assert table["count"].min() > 0
    assert table["count"].sum() == len(labels_N)
    assert (share * table.accuracy).sum() == pytest.approx(accuracy(probabilities_NC, labels_N))
    assert (share * table.gap.abs()).sum() == pytest.approx(
        ece(probabilities_NC, labels_N, n_bins), abs=1e-12
    )
    assert set(table.ece) == {ece(probabilities_NC, labels_N, n_bins)}


@few
@given(classified(limit=1000.0), st.integers(1, 30))
def test_table_is_well_formed(data, n_bins):
    logits_NC, labels_N = data

    table = reliability_table(logits_NC.softmax(dim=1), labels_N, n_bins)

    assert list(table.columns) == COLUMNS
    assert not table.isna().any().any()
    assert table.bin_left.is_monotonic_increasing
    assert table.bin_left.is_unique
    assert (table.bin_left <= table.confidence + 1e-12).all()
    assert (table.confidence <= table.bin_right + 1e-12).all()
    assert np.allclose(table.bin_right - table.bin_left, 1 / n_bins)
    assert np.allclose(table.bin_centre, (table.bin_left + table.bin_right) / 2)
    assert np.allclose(table.gap, table.accuracy - table.confidence)


@few
@given(classified(), st.randoms(use_true_random=False))
def test_order_of_images_does_not_matter(data, random):
    logits_NC, labels_N = data
    order = list(range(len(labels_N)))
    random.shuffle(order)
    probabilities_NC = logits_NC.softmax(dim=1)

    pd.testing.assert_frame_equal(
        reliability_table(probabilities_NC, labels_N),
        reliability_table(probabilities_NC[order], labels_N[order]),
    )


@few
@given(classified())
def test_table_survives_a_csv_file(data):
    logits_NC, labels_N = data
    table = reliability_table(logits_NC.softmax(dim=1), labels_N)

    rows = list(csv.DictReader(io.StringIO(table.to_csv(index=False))))

    assert list(rows[0]) == COLUMNS
    again = [[float(value) for value in row.values()] for row in rows]
    assert again == table.to_numpy().tolist()
