"""DeLong's test: its definition by all pairs, its interval, and what it finds by chance."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from sklearn.metrics import roc_auc_score

from jemtrack.errors import InputError
from jemtrack.evaluation.statistics.delong import (
    auroc_interval,
    delong_test,
    mean_placements,
    placements,
)
from jemtrack.evaluation.statistics.paired_tests import holm

# Few distinct scores, so that ties are frequent.
scores = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=2, max_size=12)
# Of outlier detection in the default report: 3 pairs, each by 5 scores on 4 kinds of outliers, and
# by one score over all kinds.
N_TESTS = 63


def by_definition(images_I, outliers_O):
    """Compare each image with each outlier: 1 if it has the higher score, a half if equal."""
    return np.array([[(i > o) + 0.5 * (i == o) for o in outliers_O] for i in images_I])


def drawn(stream, shifts, n=1000):
    """Draw the scores of several models: normal, with correlation 1/2 as of the same images.

    Model m has the AUROC Phi(shift / sqrt 2).
    """
    kinds = []
    for own in (shifts, [0.0] * len(shifts)):
        shared = stream.normal(size=n)
        alone = [stream.normal(size=n) for _ in shifts]
        kinds.append([s + np.sqrt(0.5) * (shared + a) for s, a in zip(own, alone, strict=True)])
    return [placements(*each) for each in zip(*kinds, strict=True)]


def shift_for(auroc):
    return np.sqrt(2) * scipy.stats.norm.ppf(auroc)


def found(stream, aurocs, n_tests=N_TESTS):
    """Whether a pair of models differs after Holm's correction beside tests that find nothing."""
    p_value = delong_test(*drawn(stream, [shift_for(each) for each in aurocs])).p_value
    return holm([p_value] + [1.0] * (n_tests - 1))[0] < 0.05


@at_most(50)
@given(scores, scores)
def test_auroc_and_variance_are_those_of_the_definition(images_I, outliers_O):
    above_IO = by_definition(images_I, outliers_O)
    image_I, outlier_O = above_IO.mean(axis=1), above_IO.mean(axis=0)

    placed = placements(np.array(images_I), np.array(outliers_O))

    np.testing.assert_allclose(placed.image_I, image_I, atol=1e-12)
    np.testing.assert_allclose(placed.outliers[0], outlier_O, atol=1e-12)
    variance = image_I.var(ddof=1) / len(images_I) + outlier_O.var(ddof=1) / len(outliers_O)
    assert placed.variance == pytest.approx(variance, abs=1e-12)
    truth = [1] * len(images_I) + [0] * len(outliers_O)
    assert placed.auroc == pytest.approx(roc_auc_score(truth, images_I + outliers_O))


@at_most(50)
@given(st.data())
def test_the_test_of_two_models_has_the_covariance_of_the_definition(data):
    n_images, n_outliers = data.draw(st.integers(2, 8)), data.draw(st.integers(2, 8))
    values = st.sampled_from([-1.0, 0.0, 0.5, 2.0])
    models = [
        [data.draw(st.lists(values, min_size=n, max_size=n)) for n in (n_images, n_outliers)]
        for _ in range(2)
    ]
    one_IO, two_IO = (by_definition(*model) for model in models)
    covariance = np.cov(one_IO.mean(axis=1), two_IO.mean(axis=1)) / n_images
    covariance += np.cov(one_IO.mean(axis=0), two_IO.mean(axis=0)) / n_outliers
    error = np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0))
    difference = one_IO.mean() - two_IO.mean()

    test = delong_test(*(placements(*map(np.array, model)) for model in models))

    assert test.difference == pytest.approx(difference, abs=1e-12)
    if error > 1e-9:
        expected = 2 * scipy.stats.norm.sf(abs(difference) / error)
        least = 0.5 ** (n_images + n_outliers - 1)
        assert test.p_value == pytest.approx(max(expected, least), abs=1e-9)
        half = scipy.stats.norm.ppf(0.975) * error
        assert test.low == pytest.approx(max(difference - half, -1))
        assert test.high == pytest.approx(min(difference + half, 1))


def test_the_mean_over_kinds_of_outliers_varies_as_simulated():
    """The images are the same for both kinds, so that the two AUROCs go together."""
    stream = np.random.default_rng(4)
    found = []
    for _ in range(1500):
        images = stream.normal(1, 1, 60)
        kinds = [placements(images, stream.normal(at, 1, n)) for at, n in ((0, 40), (0.5, 80))]
        found.append(mean_placements(kinds))

    aurocs, variances = ([getattr(one, name) for one in found] for name in ("auroc", "variance"))
    assert aurocs[-1] == pytest.approx(np.mean([each.auroc for each in kinds]))
    assert np.mean(variances) == pytest.approx(np.var(aurocs), rel=0.1)
    assert mean_placements(kinds[:1]).variance == pytest.approx(kinds[0].variance)


def test_a_model_does_not_differ_from_itself_or_from_one_that_ranks_alike():
    stream = np.random.default_rng(1)
    images, outliers = stream.normal(1, 1, 50), stream.normal(size=40)
    one, other = placements(images, outliers), placements(np.exp(images), np.exp(outliers))

    assert delong_test(one, other) == (0.0, 0.0, 0.0, 1.0)


def test_few_images_cannot_make_sure_of_anything():
    """Every image above every outlier, and below: a difference of 1 without any variance."""
    high, low = np.array([2.0, 3.0]), np.array([0.0, 1.0])
    test = delong_test(placements(high, low), placements(low, high))

    assert (test.difference, test.p_value) == (1.0, 0.5**3)
    one = placements(high[:1], low)
    assert delong_test(one, placements(low[:1], high)).p_value == 1
    assert auroc_interval(one) == (0, 1)
    assert auroc_interval(placements(high, low)) == (1, 1)


def test_the_interval_is_within_0_and_1_and_holds_the_truth_as_often_as_it_says():
    stream = np.random.default_rng(2)
    held = []
    for _ in range(400):
        (placed,) = drawn(stream, [shift_for(0.97)], n=60)
        low, high = auroc_interval(placed)
        assert 0 <= low < placed.auroc < high <= 1
        held.append(low <= 0.97 <= high)

    assert 0.93 <= np.mean(held) <= 0.98
    with pytest.raises(InputError, match="level"):
        auroc_interval(placed, 1.0)


def test_a_difference_is_found_after_correction_and_equal_models_are_not():
    """AUROC .85 and .90 on 1,000 images; `tests/soak/test_significance.py` has more draws."""
    stream = np.random.default_rng(3)

    assert sum(found(stream, (0.85, 0.90)) for _ in range(30)) >= 27
    assert sum(found(stream, (0.85, 0.85)) for _ in range(30)) <= 1
