"""The measures of calibration on degenerate and on wrong input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stated import accuracy, brier, ece, ece_bin_centre, nll, reliability_table, stated

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.models.comparison import compare_classifiers


def one_hot(labels_N, n_classes):
    return torch.eye(n_classes, dtype=torch.float64)[labels_N]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_perfect_predictor(labels):
    labels_N = torch.tensor(labels)
    probabilities_NC = one_hot(labels_N, 4)

    assert accuracy(probabilities_NC, labels_N) == 1
    assert brier(probabilities_NC, labels_N) == 0
    assert nll(1000 * probabilities_NC, labels_N) == 0
    assert ece(probabilities_NC, labels_N) == 0
    assert ece_bin_centre(probabilities_NC, labels_N) == pytest.approx(0.025)


def test_all_wrong_and_sure():
    labels_N = torch.tensor([0, 1, 2])
    probabilities_NC = one_hot((labels_N + 1) % 3, 3)

    assert accuracy(probabilities_NC, labels_N) == 0
    assert brier(probabilities_NC, labels_N) == 2
    assert ece(probabilities_NC, labels_N) == 1
    table = reliability_table(probabilities_NC, labels_N)
    assert table[["bin_left", "bin_right", "count", "gap"]].to_numpy().tolist() == [
        [0.95, 1, 3, -1]
    ]


def test_one_image():
    probabilities_NC, labels_N = torch.tensor([[0.2, 0.8]]).double(), torch.tensor([0])

    assert accuracy(probabilities_NC, labels_N) == 0
    assert ece(probabilities_NC, labels_N) == pytest.approx(0.8)
    assert ece_bin_centre(probabilities_NC, labels_N) == pytest.approx(0.825)
    assert brier(probabilities_NC, labels_N) == pytest.approx(1.28)
    assert nll(probabilities_NC.log(), labels_N) == pytest.approx(math.log(5))


@pytest.mark.parametrize("edge", range(1, 20))
def test_confidence_on_an_edge_is_in_the_bin_above(edge):
    confidence = edge / 20
    rest = torch.full((1, 19), (1 - confidence) / 19, dtype=torch.float64)
    probabilities_NC = torch.cat([torch.tensor([[confidence]]).double(), rest], dim=1)
    probabilities_NC[0, 0] = confidence

    table = reliability_table(probabilities_NC, torch.tensor([0]))

    assert table.bin_left.tolist() == [edge / 20]


def test_confidence_of_one_is_in_the_last_bin_with_its_neighbours():
    """.97 is right and 1 is wrong: in one bin their errors cancel in part, in two they add up."""
    probabilities_NC = torch.tensor([[1.0, 0.0], [0.03, 0.97]], dtype=torch.float64)
    labels_N = torch.tensor([1, 1])

    assert reliability_table(probabilities_NC, labels_N)["count"].tolist() == [2]
    assert ece(probabilities_NC, labels_N) == pytest.approx(abs(0.5 - 1.97 / 2))


def test_a_class_that_never_occurs_changes_nothing():
    probabilities_NC = torch.tensor([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]], dtype=torch.float64)
    labels_N = torch.tensor([0, 1, 0])
    padded_NC = torch.nn.functional.pad(probabilities_NC, (0, 1))

    for measure in (accuracy, brier, ece, ece_bin_centre):
        assert measure(padded_NC, labels_N) == measure(probabilities_NC, labels_N)


def test_empty_bins_have_no_row():
    probabilities_NC = torch.tensor([[0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)

    table = reliability_table(probabilities_NC, torch.tensor([0, 1]), 4)

    assert table.bin_left.tolist() == [0.5, 0.75]


def test_one_bin_is_the_gap_of_the_means():
    probabilities_NC = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)

    assert ece(probabilities_NC, torch.tensor([0, 0]), 1) == pytest.approx(0.3)


def test_nll_is_finite_for_extreme_logits():
    extreme = torch.finfo(torch.float32).max
    logits_NC = torch.tensor([[extreme, -extreme]])

    measured = CalibrationMeasures()(logits_NC, torch.tensor([1])).metrics["nll"]

    assert measured == pytest.approx(2 * extreme)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_accepted(dtype):
    logits_NC = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels_N = torch.arange(64) % 10

    metrics = CalibrationMeasures()(logits_NC.requires_grad_(), labels_N).metrics

    exact_NC = logits_NC.detach().double()
    assert metrics["ece"] == ece(exact_NC.softmax(dim=1), labels_N)
    rounded = LabelledLogits.from_probabilities(logits_NC.softmax(dim=1), labels_N)
    assert (rounded.probabilities_NC - exact_NC.softmax(dim=1)).abs().max() < 0.01


def test_rounding_above_one_is_not_passed_on():
    """In float32 a softmax may come out as 1.0000001."""
    above = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    rounded = LabelledLogits.from_probabilities(
        torch.stack([above, 1 - above])[None], torch.tensor([0])
    )
    table = reliability_table(rounded.probabilities_NC, rounded.labels_N)

    assert table[["bin_right", "confidence", "ece"]].to_numpy().tolist() == [[1, 1, 0]]


HALVES = torch.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("probabilities_NC", "labels_N", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "no images"),
        (HALVES, torch.tensor([0, 1]), "one label an image"),
        (HALVES[0], torch.tensor([0, 1]), "one row of scores an image"),
        (torch.ones(3, 1), torch.tensor([0, 0, 0]), "two classes"),
        (HALVES, torch.tensor([0.0, 1.0, 0.0]), "whole numbers"),
        (HALVES, torch.tensor([0, 1, 2]), "from 0 to 1, .* got 0 to 2"),
        (HALVES, torch.tensor([0, -1, 1]), "no label"),
        (torch.tensor([[math.nan, 1], [0, 1]]), torch.tensor([0, 1]), "1 of 2 images"),
        (torch.tensor([[math.inf, 1], [0, 1]]), torch.tensor([0, 1]), "infinite or NaN"),
    ],
)
@pytest.mark.parametrize(
    "measure",
    [
        LabelledLogits.from_probabilities,
        LabelledLogits,
        CalibrationMeasures(),
        lambda logits_NC, labels_N: compare_classifiers({"one": logits_NC}, labels_N, seed=0),
    ],
)
def test_bad_input_is_refused(measure, probabilities_NC, labels_N, message):
    with pytest.raises(InputError, match=message):
        measure(probabilities_NC, labels_N)


@pytest.mark.parametrize("probabilities", [[3.0, -2.0], [0.2, 0.3]])
def test_what_are_no_probabilities_is_refused(probabilities):
    with pytest.raises(InputError, match=r"sum to 1 .*: pass logits as they are"):
        LabelledLogits.from_probabilities(torch.tensor([probabilities]), torch.tensor([0]))


@settings(max_examples=30)
@given(stated())
def test_probabilities_come_back_from_their_logarithms(data):
    probabilities_NC, labels_N = data

    checked = LabelledLogits.from_probabilities(probabilities_NC, labels_N)

    torch.testing.assert_close(checked.probabilities_NC, probabilities_NC)
    assert checked.confidence_N == pytest.approx(probabilities_NC.amax(dim=1).numpy())


@pytest.mark.parametrize("n_bins", [0, -3])
def test_number_of_bins_is_positive(n_bins):
    with pytest.raises(InputError, match="n_bins must be >= 1"):
        ece(HALVES, torch.tensor([0, 1, 0]), n_bins)
