"""Bins of equally many images; calibration error in them and class by class; Brier's parts."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from profiles import at_most
from stated import stated
from torchmetrics.functional.classification import binary_calibration_error

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.binning import bin_indices, equal_mass, equal_width
from jemtrack.evaluation.measures.brier_decomposition import brier_decomposition
from jemtrack.evaluation.measures.calibration import brier, ece, ece_class_wise, reliability_table

few = at_most(30)
n_bins_ = st.integers(1, 25)
binnings = st.sampled_from([equal_width, equal_mass])


@few
@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1), unique=True), n_bins_)
def test_bins_of_distinct_confidences_differ_by_one_image_at_most(confidence_N, n_bins):
    bin_N = bin_indices(confidence_N, equal_mass(confidence_N, n_bins))

    counts = np.bincount(bin_N)
    assert len(counts) == min(n_bins, len(confidence_N))
    assert counts.max() - counts.min() <= 1
    # They are NumPy's own parts of the sorted confidences, in whatever order the larger ones come.
    parts = np.array_split(np.sort(confidence_N), len(counts))
    assert sorted(map(len, parts)) == sorted(counts)
    assert (np.diff(bin_N[np.argsort(confidence_N)]) >= 0).all()


@few
@given(stated(), n_bins_, st.randoms())
def test_ties_share_a_bin_so_that_the_order_changes_nothing(data, n_bins, random):
    probabilities_NC, labels_N = data
    order = list(range(len(labels_N)))
    random.shuffle(order)

    table = reliability_table(probabilities_NC, labels_N, n_bins, equal_mass)
    again = reliability_table(probabilities_NC[order], labels_N[order], n_bins, equal_mass)

    np.testing.assert_allclose(again, table, atol=1e-12)
    assert table["count"].sum() == len(labels_N)
    assert table["ece"][0] == pytest.approx(
        (table["count"] * table.gap.abs()).sum() / len(labels_N)
    )


def test_equal_mass_by_hand():
    """Two bins of two: confidences .6 and .7 with one right, .8 and .9 with both right."""
    confidence_N = torch.tensor([0.6, 0.9, 0.7, 0.8], dtype=torch.float64)
    probabilities_NC = torch.stack([confidence_N, 1 - confidence_N], dim=1)

    measured = ece(probabilities_NC, torch.tensor([0, 0, 1, 0]), 2, equal_mass)

    assert measured == pytest.approx((abs(0.5 - 0.65) + abs(1 - 0.85)) / 2)


@few
@given(stated(), n_bins_)
def test_class_wise_error_is_the_mean_of_torchmetrics_binary_errors(data, n_bins):
    """Off the edges: float32 moves them, and torchmetrics gives exactly 1 a bin of its own."""
    probabilities_NC, labels_N = data
    in_bins_NC = probabilities_NC * n_bins
    assume((in_bins_NC - in_bins_NC.round()).abs().min() > 1e-4)
    theirs = [
        binary_calibration_error(probability_N, (labels_N == class_).int(), n_bins, norm="l1")
        for class_, probability_N in enumerate(probabilities_NC.T.contiguous())
    ]

    measured = ece_class_wise(probabilities_NC, labels_N, n_bins)

    assert measured == pytest.approx(float(sum(theirs)) / len(theirs), abs=1e-5)


@pytest.mark.parametrize("binning", [equal_width, equal_mass])
def test_probabilities_of_0_and_1(binning):
    probabilities_NC = torch.eye(3).double()[[0, 1, 2, 2]]

    assert ece_class_wise(probabilities_NC, torch.tensor([0, 1, 2, 2]), 5, binning) == 0
    assert ece_class_wise(probabilities_NC, torch.tensor([1, 2, 0, 0]), 5, binning) == (
        pytest.approx((2 / 4 + 2 / 4 + 4 / 4) / 3)
    )
    assert ece(probabilities_NC, torch.tensor([1, 2, 0, 0]), 5, binning) == 1


@few
@given(stated(), n_bins_, binnings)
def test_the_parts_of_the_brier_score_add_up_to_it(data, n_bins, binning):
    probabilities_NC, labels_N = data

    parts = brier_decomposition(probabilities_NC, labels_N, n_bins, binning)

    shares = torch.bincount(labels_N, minlength=probabilities_NC.shape[1]) / len(labels_N)
    assert parts.brier == pytest.approx(brier(probabilities_NC, labels_N), abs=1e-12)
    assert parts.uncertainty == pytest.approx(float(1 - shares.square().sum()), abs=1e-6)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0
    assert parts.resolution <= parts.uncertainty + 1e-12


@few
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_one_probability_a_bin_is_murphy_s_partition(images):
    """With as many bins as values nothing is left over, and each part is its definition."""
    values = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    step_N, labels_N = (torch.tensor(each).long() for each in zip(*images, strict=True))
    probabilities_NC = torch.stack([1 - values[step_N], values[step_N]], dim=1)
    rate = labels_N.double().mean()
    groups = [(values[each], labels_N[step_N == each].double()) for each in step_N.unique()]

    parts = brier_decomposition(probabilities_NC, labels_N, 5)

    # Both classes have the same parts, hence the 2.
    reliability = sum(2 * len(g) * (p - g.mean()) ** 2 for p, g in groups) / len(labels_N)
    resolution = sum(2 * len(g) * (g.mean() - rate) ** 2 for _, g in groups) / len(labels_N)
    assert parts.reliability == pytest.approx(float(reliability), abs=1e-12)
    assert parts.resolution == pytest.approx(float(resolution), abs=1e-12)
    assert parts.remainder == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("binning", [equal_width, equal_mass])
def test_there_is_a_bin_at_least(binning):
    with pytest.raises(InputError, match="n_bins must be >= 1, got 0"):
        binning(np.array([0.5]), 0)
