"""How often the evaluation finds a difference of AUROC that is there, and one that is not."""

import numpy as np
import pytest
from test_evaluation_delong import N_TESTS, drawn, found, shift_for

from jemtrack.evaluation.models.outlier_detection import detect_outliers
from jemtrack.evaluation.statistics.delong import delong_test

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("worse", [0.80, 0.85, 0.90])
def test_a_difference_of_05_on_1000_images_is_found_after_correction(worse):
    stream = np.random.default_rng(1)

    assert np.mean([found(stream, (worse, worse + 0.05)) for _ in range(500)]) >= 0.9


@pytest.mark.parametrize("auroc", [0.6, 0.85, 0.97])
def test_equal_models_differ_in_at_most_5_of_100_draws_even_without_correction(auroc):
    """Of 2,000 draws, the standard error is half a percent."""
    stream = np.random.default_rng(2)
    shifts = [shift_for(auroc)] * 2
    p_values = [delong_test(*drawn(stream, shifts, n=300)).p_value for _ in range(2000)]

    assert 0.035 <= np.mean(np.array(p_values) < 0.05) <= 0.06


SCORES = ["score0", "log_density", "score2", "score3", "score4"]
MODELS = ("good", "one", "two")


def scores(stream, shift, better=0.0, n=1000):
    """Draw images' scores by model and score; the first of each is higher by `better`."""
    found = {model: {} for model in MODELS}
    for score in SCORES:
        shared = stream.normal(size=n)
        for model in MODELS:
            ahead = better if (model, score) == (MODELS[0], SCORES[0]) else 0.0
            own = stream.normal(size=n)
            found[model][score] = shift + ahead + np.sqrt(0.5) * (shared + own)
    return found


def test_the_default_report_s_63_tests_find_a_model_that_is_better():
    """Three models, four kinds of outliers, five scores: AUROC .90 instead of .85 by one score."""
    stream = np.random.default_rng(3)
    found, wrong = [], []
    shift, better = shift_for(0.85), shift_for(0.90) - shift_for(0.85)
    for seed in range(40):
        outliers = {partner: scores(stream, 0) for partner in "abcd"}
        images = scores(stream, shift, better)
        pairs = detect_outliers(images, outliers, seed=seed, n_resamples=100).pairs
        assert len(pairs) == N_TESTS
        ahead = (pairs["first"] == MODELS[0]) & (pairs["score"] == SCORES[0])
        found += [*(pairs.loc[ahead, "p_corrected"] < 0.05)]
        wrong.append((pairs.loc[~ahead, "p_corrected"] < 0.05).any())

    assert np.mean(found) >= 0.9
    assert np.mean(wrong) <= 0.125  # .05, and two standard errors of 40 draws
