"""The bootstrap against SciPy's, and its own rules; Wilson's interval against SciPy's."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most

from jemtrack.errors import InputError
from jemtrack.evaluation.statistics.resampling import (
    bootstrap,
    mean_of,
    percentile_interval,
    wilson_interval,
)

few = at_most(30)


@few
@given(st.integers(1, 50), st.data())
def test_wilson_agrees_with_scipy(n_images, data):
    n_right = data.draw(st.integers(0, n_images))
    level = data.draw(st.sampled_from([0.5, 0.9, 0.95, 0.99]))

    theirs = scipy.stats.binomtest(n_right, n_images).proportion_ci(level, method="wilson")

    assert tuple(wilson_interval(n_right, n_images, level)) == pytest.approx(
        (theirs.low, theirs.high), abs=1e-12
    )


def test_wilson_of_several_proportions_has_a_width_where_all_or_none_are_right():
    low, high = wilson_interval(np.array([0, 5, 10]), np.array([10, 10, 10]))

    assert low[0] == 0
    assert high[2] == 1
    assert (high - low > 0.2).all()


def test_the_interval_of_a_mean_agrees_with_scipy_s_bootstrap():
    values_N = np.random.default_rng(0).exponential(size=300)

    resampled_R = bootstrap({"mean": mean_of(values_N)}, 300, seed=1, n_resamples=4000)["mean"]

    theirs = scipy.stats.bootstrap(
        (values_N,), np.mean, n_resamples=4000, method="percentile", rng=2
    )
    expected = theirs.confidence_interval
    width = expected.high - expected.low
    assert percentile_interval(resampled_R) == pytest.approx(tuple(expected), abs=0.05 * width)
    assert resampled_R.std() == pytest.approx(values_N.std() / 300**0.5, rel=0.05)


@few
@given(st.lists(st.integers(1, 60), min_size=1, max_size=3), st.integers(1, 20))
def test_each_resample_draws_as_many_as_there_are_of_each_group(sizes, n_resamples):
    found = bootstrap({"counts": lambda counts_RN: counts_RN}, sizes, 0, n_resamples)["counts"]

    assert found.shape == (n_resamples, sum(sizes))
    assert (found >= 0).all()
    for group in np.split(found, np.cumsum(sizes)[:-1], axis=1):
        assert (group.sum(axis=1) == group.shape[1]).all()


def test_figures_of_one_bootstrap_are_of_the_same_images():
    values_N = np.random.default_rng(0).random(50)
    figures = {"one": mean_of(values_N), "same": mean_of(values_N), "less": mean_of(values_N - 1)}

    found = bootstrap(figures, 50, seed=3)

    assert (found["one"] == found["same"]).all()
    np.testing.assert_allclose(found["one"] - found["less"], 1)


def test_the_seed_decides_and_every_block_is_another():
    """300 resamples of 10,000 images are far more than one block."""
    values_N = np.random.default_rng(0).random(10_000)
    one, again, other = (
        bootstrap({"mean": mean_of(values_N)}, 10_000, seed, 300)["mean"] for seed in (1, 1, 2)
    )

    assert (one == again).all()
    assert not (one == other).any()
    assert len(set(one)) == 300


def test_all_images_equal_is_a_point():
    resampled_R = bootstrap({"mean": mean_of(np.ones(10))}, 10, seed=0)["mean"]

    assert percentile_interval(resampled_R) == (1, 1)


@pytest.mark.parametrize(("n_images", "n_resamples"), [(0, 10), ([3, 0], 10), ([], 10), (3, 0)])
def test_nothing_to_resample_is_refused(n_images, n_resamples):
    with pytest.raises(InputError, match="expected images and resamples"):
        bootstrap({}, n_images, 0, n_resamples)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, float("nan")])
def test_a_level_is_between_0_and_1(level):
    with pytest.raises(InputError, match="level must be between 0 and 1"):
        percentile_interval(np.zeros(3), level)


@pytest.mark.parametrize(("n_right", "n_images"), [(3, 2), (-1, 2), (0, 0)])
def test_counts_must_fit(n_right, n_images):
    with pytest.raises(InputError, match="0 <= n_right <= n_images"):
        wilson_interval(n_right, n_images)
