"""Figures over seeds, against SciPy."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most

from jemtrack.errors import InputError
from jemtrack.evaluation.statistics.seeds import over_seeds


@at_most(30)
@given(
    st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=2, max_size=8, unique=True),
    st.sampled_from([0.5, 0.95]),
)
def test_mean_spread_and_interval_agree_with_scipy(values, level):
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(level)

    found = over_seeds(values, level)

    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert (found.mean, found.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert found.n_seeds == len(values)


def test_one_seed_has_no_spread():
    found = over_seeds([0.9])

    assert (found.mean, found.n_seeds) == (0.9, 1)
    assert all(math.isnan(each) for each in (found.std, found.low, found.high))


def test_equal_seeds_are_a_point():
    assert over_seeds([0.5, 0.5, 0.5]) == (0.5, 0, 0.5, 0.5, 3)


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 1], [[1.0]]])
def test_what_is_no_figure_is_refused(values):
    with pytest.raises(InputError, match="one finite number a run"):
        over_seeds(values)
