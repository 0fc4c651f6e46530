"""The split-conformal threshold refuses as many as it promises, exactly."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jemtrack.deploy.conformal import conformal_threshold
from jemtrack.errors import InputError


def n_refused(scores: np.ndarray, alpha: float) -> int:
    """Take each score for the new one, in turn, and count those below the others' threshold."""
    others = [np.delete(scores, n) for n in range(len(scores))]
    return sum(new < conformal_threshold(of, alpha) for new, of in zip(scores, others, strict=True))


@given(st.lists(st.floats(-1e6, 1e6), min_size=11, max_size=40, unique=True), st.integers(10, 99))
def test_of_distinct_scores_exactly_k_of_n_plus_one_are_refused(scores, percent):
    alpha = percent / 100
    k = math.floor(Fraction(percent, 100) * len(scores))

    assert n_refused(np.array(scores), alpha) == k


@given(st.lists(st.integers(0, 3), min_size=11, max_size=40), st.integers(10, 99))
def test_of_equal_scores_no_more_are(scores, percent):
    refused = n_refused(np.array(scores, np.float32), percent / 100)

    assert refused <= Fraction(percent, 100) * len(scores)


def test_alpha_is_the_decimal_number_that_was_written():
    """In floating point, .29 * 100 is less than 29."""
    assert conformal_threshold(np.arange(99.0), 0.29) == 28


def test_too_few_images_are_told_with_the_least_alpha():
    with pytest.raises(InputError, match=r"alpha must be >= 1 / \(N \+ 1\) = 0.0526 .* N = 18 val"):
        conformal_threshold(np.arange(18.0), 0.05)
    assert conformal_threshold(np.arange(19.0), 0.05) == 0


def test_a_diverged_model_has_no_threshold():
    with pytest.raises(InputError, match="must be numbers, got NaN"):
        conformal_threshold(np.array([1.0, np.nan] * 20), 0.05)
