"""The interval of a calibration error holds the truth where the truth is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from scipy.stats import binomtest
from stated import stated

from jemtrack.errors import InputError
from jemtrack.evaluation.comparison import calibration_error
from jemtrack.evaluation.measures.binning import equal_mass, equal_width
from jemtrack.evaluation.measures.calibration import ece, reliability_table
from jemtrack.evaluation.statistics.calibration_interval import (
    calibration_error_interval,
    with_intervals,
)
from jemtrack.evaluation.statistics.resampling import bootstrap, percentile_interval

few = at_most(20)
N_BINS, N_SETS = 10, 60


def tables(n_images, true_accuracy):
    """Tables of confidences uniform in [0.1, 1], right with the chance that is given."""
    stream = np.random.default_rng(n_images)
    for _ in range(N_SETS):
        confidence_N = stream.uniform(0.1, 1, n_images)
        right_N = stream.random(n_images) < true_accuracy(confidence_N)
        bin_N = (confidence_N * N_BINS).astype(int)
        images = pd.DataFrame({"confidence": confidence_N, "accuracy": right_N.astype(float)})
        bins = images.groupby(bin_N)
        yield confidence_N, right_N, bins.mean().assign(count=bins.size())


def true_error(true_accuracy):
    confidence_N = np.linspace(0.1, 1, 90_001)[:-1] + 0.000005
    gaps = (true_accuracy(confidence_N) - confidence_N).reshape(9, -1).mean(axis=1)
    return np.abs(gaps).mean()


@pytest.mark.parametrize(
    "true_accuracy",
    [
        pytest.param(lambda confidence: confidence, id="calibrated"),
        pytest.param(lambda confidence: 0.95 * confidence, id="a little too sure"),
        pytest.param(lambda confidence: 0.7 * confidence, id="too sure"),
        pytest.param(lambda confidence: 1 - confidence, id="upside down"),
    ],
)
def test_it_holds_the_truth_as_often_as_it_says(true_accuracy):
    """Of 60 intervals that hold it as they say, fewer do in one of 200 drawings of them all."""
    truth = true_error(true_accuracy)
    for level, at_least in ((0.95, 53), (0.8, 40)):
        found = [
            calibration_error_interval(table, seed, level, n_simulated=500)
            for seed, (*_, table) in enumerate(tables(300, true_accuracy))
        ]
        assert sum(low <= truth <= high for low, high in found) >= at_least


def test_the_percentile_bootstrap_never_holds_that_of_a_calibrated_model():
    """Which is why there is another interval."""
    for seed, (confidence_N, right_N, _) in zip(range(20), tables(300, lambda c: c), strict=False):
        figure = calibration_error(confidence_N, right_N, N_BINS)
        resampled_R = bootstrap({"ece": figure}, 300, seed, 200)["ece"]
        assert percentile_interval(resampled_R).low > 0


def test_it_shrinks_with_the_square_root_of_the_images():
    def width(n_images):
        table = pd.DataFrame({"confidence": [0.5, 0.8], "accuracy": [0.3, 0.7], "count": n_images})
        low, high = calibration_error_interval(table, seed=0)
        return high - low

    assert width(10_000) == pytest.approx(width(1_000_000) * 10, rel=0.1)


@pytest.mark.parametrize("n_images", [50, 1000])
@pytest.mark.parametrize("n_wrong", [0, 1, 5])
def test_one_bin_of_a_sure_model_has_the_binomial_s_own_bounds(n_images, n_wrong):
    """At confidence 1 the error is the share of wrong images, whose exact bounds are known."""
    table = pd.DataFrame(
        {"confidence": [1.0], "accuracy": [1 - n_wrong / n_images], "count": [n_images]}
    )

    low, high = calibration_error_interval(table, seed=0)

    exact = binomtest(n_wrong, n_images).proportion_ci(0.95)
    assert low <= exact.low + 0.1 / n_images
    assert low >= exact.low - 1.5 / n_images
    assert exact.high - 1.5 / n_images <= high <= exact.high + 2.5 / n_images


@few
@given(stated(), st.integers(1, 20), st.sampled_from([equal_width, equal_mass]))
def test_it_holds_what_was_seen_and_stays_within_0_and_1(data, n_bins, binning):
    """Also of one image, of probabilities 0 and 1, and where all is right or wrong."""
    probabilities_NC, labels_N = data
    table = reliability_table(probabilities_NC, labels_N, n_bins, binning)

    low, high = calibration_error_interval(table, seed=0, n_simulated=200)

    seen = ece(probabilities_NC, labels_N, n_bins, binning)
    assert 0 <= low <= seen + 1e-9
    assert seen - 1e-9 <= high <= 1


@few
@given(stated(), st.integers(1, 20))
def test_the_bins_intervals_are_scipy_s(data, n_bins):
    table = with_intervals(reliability_table(*data, n_bins), level=0.9)

    for row in table.itertuples():
        n_right = round(row.accuracy * row.count)
        theirs = binomtest(n_right, row.count).proportion_ci(0.9, method="wilson")
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx(
            (theirs.low, theirs.high), abs=1e-9
        )


def test_the_figure_for_resampling_is_the_error_itself():
    stream = torch.Generator().manual_seed(0)
    probabilities_NC = torch.rand(200, 4, generator=stream).double().softmax(1)
    labels_N = torch.randint(4, (200,), generator=stream)
    confidence_N, predicted_N = (each.numpy() for each in probabilities_NC.max(1))

    figure = calibration_error(confidence_N, predicted_N == labels_N.numpy(), 20)
    drawn = np.random.default_rng(0).integers(200, size=200)
    counts = np.stack([np.ones(200), np.bincount(drawn, minlength=200)])

    expected = [ece(probabilities_NC, labels_N), ece(probabilities_NC[drawn], labels_N[drawn])]
    assert figure(counts) == pytest.approx(expected)


def test_what_is_no_table_or_level_is_refused():
    table = pd.DataFrame({"confidence": [0.5], "accuracy": [1.0], "count": [3]})

    with pytest.raises(InputError, match="no rows"):
        calibration_error_interval(table[:0], seed=0)
    with pytest.raises(InputError, match="level must be between 0 and 1"):
        calibration_error_interval(table, seed=0, level=95)
