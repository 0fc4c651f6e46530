"""Risk against coverage, against the definition by loops over thresholds."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from sklearn.metrics import auc

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.selective import aurc, excess_aurc, risk_coverage

few = at_most(30)
images_ = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30)


def columns(images):
    confidence, right = zip(*images, strict=True)
    return np.array(confidence) / 5, np.array(right)


def aurc_in_order(right):
    risks = [sum(not each for each in right[:k]) / k for k in range(1, len(right) + 1)]
    return sum(risks) / len(risks)


@few
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_without_ties_it_is_the_definition(right):
    confidence_N = np.linspace(1, 0.2, len(right))
    best = aurc_in_order(sorted(right, reverse=True))

    assert aurc(confidence_N, np.array(right)) == pytest.approx(aurc_in_order(right))
    assert excess_aurc(confidence_N, np.array(right)) == pytest.approx(
        aurc_in_order(right) - best, abs=1e-12
    )


@at_most(15)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_with_ties_it_is_the_mean_over_their_orders(images):
    orders = [sorted(each, key=lambda image: -image[0]) for each in permutations(images)]
    expected = np.mean([aurc_in_order([right for _, right in order]) for order in orders])

    assert aurc(*columns(images)) == pytest.approx(expected)


@few
@given(images_)
def test_the_curve_has_one_row_an_image_and_gives_the_area_back(images):
    confidence_N, right_N = columns(images)
    curve = risk_coverage(confidence_N, right_N)

    assert curve["coverage"].tolist() == pytest.approx(np.arange(1, len(images) + 1) / len(images))
    assert curve["risk"].mean() == pytest.approx(aurc(confidence_N, right_N))
    assert curve["risk"].iloc[-1] == pytest.approx(1 - right_N.mean())
    assert 0 <= excess_aurc(confidence_N, right_N) <= aurc(confidence_N, right_N)


def test_a_long_curve_is_thinned_and_keeps_its_area():
    stream = np.random.default_rng(0)
    confidence_N = stream.random(5000)
    right_N = stream.random(5000) < confidence_N

    curve = risk_coverage(confidence_N, right_N, n_points=100)

    assert len(curve) == 100
    assert curve["coverage"].iloc[-1] == 1
    assert auc(curve["coverage"], curve["risk"]) == pytest.approx(
        aurc(confidence_N, right_N), abs=0.005
    )


@pytest.mark.parametrize(("right", "expected"), [([1, 1], 0), ([0, 0], 1), ([0], 1), ([1], 0)])
def test_all_right_and_all_wrong(right, expected):
    confidence_N = np.linspace(1, 0, len(right))

    assert aurc(confidence_N, np.array(right)) == expected
    assert excess_aurc(confidence_N, np.array(right)) == 0


@pytest.mark.parametrize(
    ("confidence", "right", "said"),
    [
        ([0.5], [True, False], "one number an image"),
        ([], [], "no images"),
        ([np.nan], [True], "NaN"),
        ([[0.5]], [[True]], "one number an image"),
    ],
)
def test_what_does_not_fit_is_refused(confidence, right, said):
    with pytest.raises(InputError, match=said):
        aurc(np.array(confidence, dtype=float), np.array(right, dtype=bool))
