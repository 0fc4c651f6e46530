"""Paired tests against SciPy and closed forms; what they find where there is nothing."""

from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import at_most

from jemtrack.errors import InputError
from jemtrack.evaluation.statistics.paired_tests import EXACT_BELOW, holm, mcnemar, paired_bootstrap
from jemtrack.evaluation.statistics.resampling import Interval, bootstrap, mean_of

few = at_most(30)
p_values_ = st.lists(st.sampled_from([0, 0.001, 0.01, 0.02, 0.04, 0.3, 1]), min_size=1, max_size=5)


def paired(first_only, second_only, both=3, neither=2):
    counts = [first_only, second_only, both, neither]
    return np.repeat([1, 0, 1, 0], counts), np.repeat([0, 1, 1, 0], counts)


@few
@given(st.integers(0, 40), st.integers(0, 40))
@example(0, 0)
@example(0, EXACT_BELOW)
def test_mcnemar_agrees_with_scipy(first_only, second_only):
    discordant = first_only + second_only
    if discordant < EXACT_BELOW:
        expected = scipy.stats.binomtest(first_only, discordant).pvalue if discordant else 1.0
    else:
        distance = max(abs(first_only - second_only) - 1, 0)
        expected = scipy.stats.chi2.sf(distance**2 / discordant, df=1)

    found = mcnemar(*paired(first_only, second_only))

    assert found.p_value == pytest.approx(expected)
    assert found.difference == pytest.approx((first_only - second_only) / (discordant + 5))


@few
@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_same_from_both_sides(first_only, second_only):
    found, mirrored = (
        mcnemar(*paired(*each)) for each in [(first_only, second_only), (second_only, first_only)]
    )

    assert found.p_value == mirrored.p_value
    assert (found.low, found.high) == pytest.approx((-mirrored.high, -mirrored.low))
    assert found.low <= found.difference <= found.high
    assert found.low < found.high


@pytest.mark.parametrize("n_images", [60, 600])
def test_mcnemar_finds_and_covers_as_often_as_it_says(n_images):
    """Of 2000 pairs of equal models, at most 5% differ at .05; the interval holds the truth."""
    stream = np.random.default_rng(1)
    cells_4 = stream.multinomial(n_images, [0.05, 0.05, 0.7, 0.2], size=2000)

    found = [mcnemar(*paired(*cells)) for cells in cells_4]

    assert np.mean([each.p_value <= 0.05 for each in found]) <= 0.06
    assert 0.935 <= np.mean([each.low <= 0 <= each.high for each in found]) <= 0.99


@few
@given(st.floats(-3, 3), st.integers(20, 200))
def test_the_paired_bootstrap_is_near_the_z_test(shift, n_images):
    values_N = np.random.default_rng(n_images).normal(size=n_images)
    values_N += shift * values_N.std() / n_images**0.5 - values_N.mean()
    resampled_R = bootstrap({"d": mean_of(values_N)}, n_images, seed=0)["d"]

    found = paired_bootstrap(values_N.mean(), resampled_R)

    assert found.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(shift)), abs=0.06)
    assert found.low <= found.difference <= found.high


def test_the_paired_bootstrap_finds_as_often_as_it_says_where_there_is_nothing():
    stream = np.random.default_rng(0)
    p_values, held = [], []
    for seed in range(300):
        values_N = stream.exponential(size=100) - 1
        resampled_R = bootstrap({"d": mean_of(values_N)}, 100, seed, n_resamples=200)["d"]
        found = paired_bootstrap(values_N.mean(), resampled_R)
        p_values.append(found.p_value)
        held.append(found.low <= 0 <= found.high)

    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.09
    assert 0.91 <= np.mean(held) <= 0.98


def test_models_that_are_the_same_do_not_differ():
    found = paired_bootstrap(0.0, np.zeros(100))

    assert found == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("bias", "nearest"), [((0.0, 0.5), 0.5), ((-0.5, 0.0), 1.0), ((0, 2), 0)])
def test_a_difference_that_may_be_off_is_tested_at_its_nearest_to_0(bias, nearest):
    resampled_R = np.random.default_rng(0).normal(1, 0.3, 2000)

    found = paired_bootstrap(1.0, resampled_R, bias=Interval(*bias))

    straight = paired_bootstrap(1.0, resampled_R)
    assert found.p_value == paired_bootstrap(nearest, resampled_R).p_value
    assert found.low == pytest.approx(straight.low - bias[1])
    assert found.high == pytest.approx(straight.high - bias[0])


def test_a_p_value_is_never_0():
    assert paired_bootstrap(5.0, np.random.default_rng(0).normal(5, 0.1, 999)).p_value == 0.001


@few
@given(p_values_)
def test_holm_is_the_closed_test_of_bonferroni_s(p_values):
    """The corrected value is the worst of Bonferroni's over all sets that hold the hypothesis."""
    indices = range(len(p_values))
    sets = [each for size in indices for each in combinations(indices, size + 1)]
    expected = [
        min(1, max(len(each) * min(p_values[k] for k in each) for each in sets if index in each))
        for index in indices
    ]

    assert holm(p_values) == pytest.approx(expected)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert len(holm([])) == 0


@pytest.mark.parametrize("p_values", [[1.1], [-0.1], [float("nan")], [[0.5]]])
def test_what_is_no_p_value_is_refused(p_values):
    with pytest.raises(InputError, match="p-values must be from 0 to 1"):
        holm(p_values)


def test_the_models_must_be_of_the_same_images():
    with pytest.raises(InputError, match="what is correct must be one number an image"):
        mcnemar(np.ones(3), np.ones(2))
