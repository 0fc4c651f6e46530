"""Detecting outliers, against scikit-learn and thresholds by hand; tied scores; resampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from profiles import at_most
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.detection import MEASURES, Detection
from jemtrack.evaluation.statistics.resampling import bootstrap

few = at_most(25)


@st.composite
def scores(draw):
    """Scores of images and outliers, with many ties, few or none."""
    elements = draw(
        st.sampled_from([st.sampled_from([-1.0, 0.0, 0.5]), st.integers(-9, 9), st.floats(-1, 1)])
    )
    return tuple(
        draw(arrays(np.float64, st.integers(1, 50), elements=elements.map(float))) for _ in range(2)
    )


def measured_by_scikit_learn(images_I, outliers_O):
    """Their AUROC and average precisions, and the definition of FPR at 95% TPR."""
    scores_N = np.concatenate([images_I, outliers_O])
    is_image_N = np.arange(len(scores_N)) < len(images_I)
    passing = [t for t in scores_N if (images_I >= t).sum() * 100 >= len(images_I) * 95]
    return {
        "auroc": roc_auc_score(is_image_N, scores_N),
        "aupr_in": average_precision_score(is_image_N, scores_N),
        "aupr_out": average_precision_score(~is_image_N, -scores_N),
        "fpr95": (outliers_O >= max(passing)).mean(),
    }


@few
@given(scores())
def test_measures_agree_with_scikit_learn(scores_):
    assert Detection(*scores_).measures() == pytest.approx(measured_by_scikit_learn(*scores_))


@few
@given(scores(), st.data())
def test_a_resample_is_measured_like_the_images_that_were_drawn(scores_, data):
    images_I, outliers_O = scores_
    drawn = [data.draw(st.lists(st.sampled_from(range(len(s))), min_size=len(s), max_size=len(s)))
             for s in scores_]  # fmt: skip
    counts_N = np.concatenate(
        [np.bincount(d, minlength=len(s)) for d, s in zip(drawn, scores_, strict=True)]
    )

    found = Detection(images_I, outliers_O)(np.stack([counts_N, np.ones(len(counts_N))]))

    resampled = measured_by_scikit_learn(images_I[drawn[0]], outliers_O[drawn[1]])
    assert dict(zip(MEASURES, found[0], strict=True)) == pytest.approx(resampled)
    assert dict(zip(MEASURES, found[1], strict=True)) == pytest.approx(
        measured_by_scikit_learn(images_I, outliers_O)
    )


@pytest.mark.parametrize(
    ("images", "outliers", "expected"),
    [
        pytest.param([2.0, 3.0], [0.0, 1.0], [1, 1, 1, 0], id="apart"),
        pytest.param([0.0], [1.0], [0, 0.5, 0.5, 1], id="the wrong way round"),
        pytest.param([1.0, 1.0], [1.0, 1.0, 1.0], [0.5, 0.4, 0.6, 1], id="all tied"),
        pytest.param([np.inf, 0.0], [-np.inf], [1, 1, 1, 0], id="infinite"),
        pytest.param([np.inf, np.inf], [np.inf], [0.5, 2 / 3, 1 / 3, 1], id="infinite, tied"),
    ],
)
def test_extremes(images, outliers, expected):
    found = Detection(np.array(images), np.array(outliers)).measures()

    assert list(found.values()) == pytest.approx(expected)


@pytest.mark.parametrize(("n_images", "n_below"), [(20, 1), (40, 2), (19, 0), (100, 5), (60, 3)])
def test_nineteen_of_twenty_are_95_percent(n_images, n_below):
    """So one of twenty images may be below the threshold, and an outlier beside it fails."""
    images_I = np.repeat([0.0, 2.0], [n_below, n_images - n_below])

    assert Detection(images_I, np.array([1.0, 1.0])).measures()["fpr95"] == 0


@at_most(20)
@given(scores())
def test_the_whole_roc_curve_is_scikit_learn_s(scores_):
    images_I, outliers_O = scores_
    scores_N = np.concatenate(scores_)
    is_image_N = np.arange(len(scores_N)) < len(images_I)

    curve = Detection(images_I, outliers_O).roc(n_points=10_000)

    theirs = np.column_stack(roc_curve(is_image_N, scores_N, drop_intermediate=False)[:2])
    np.testing.assert_allclose(np.unique(curve, axis=0), np.unique(theirs, axis=0))


@pytest.mark.parametrize("n_points", [2, 3, 50])
def test_a_thinned_curve_stays_on_the_whole_one_with_its_ends(n_points):
    stream = np.random.default_rng(0)
    detection = Detection(stream.normal(size=3000) + 1, stream.normal(size=2000))

    curve, whole = detection.roc(n_points), detection.roc(10_000)

    points = set(map(tuple, whole.to_numpy()))
    assert len(curve) == n_points
    assert curve.iloc[0].tolist() == [0, 0]
    assert curve.iloc[-1].tolist() == [1, 1]
    assert all(tuple(point) in points for point in curve.to_numpy())
    assert (curve.diff().iloc[1:] >= 0).all().all()


def test_the_bootstrap_s_spread_of_auroc_is_its_closed_form():
    """Hanley and McNeil's (1982), with the probabilities of exponential scores."""
    stream = np.random.default_rng(3)
    detection = Detection(stream.exponential(2, size=400), stream.exponential(1, size=300))

    resampled_R4 = bootstrap({"all": detection}, detection.sizes, seed=1, n_resamples=500)["all"]

    area = 2 / 3
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 399 * (first - area**2) + 299 * (second - area**2)) / 120_000
    assert resampled_R4.shape == (500, len(MEASURES))
    assert resampled_R4[:, 0].std() == pytest.approx(variance**0.5, rel=0.15)


@pytest.mark.parametrize(
    ("images", "outliers", "said"),
    [
        ([], [1.0], "the images' scores"),
        ([1.0], [], "the outliers' scores"),
        ([np.nan], [1.0], "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(images, outliers, said):
    with pytest.raises(InputError, match=said):
        Detection(np.array(images), np.array(outliers))
