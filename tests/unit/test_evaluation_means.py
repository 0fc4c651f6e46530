"""Means of several models on the same images: intervals, and the better model is found."""

import numpy as np
import pandas as pd
import pytest

from jemtrack.evaluation.statistics.means import compare_means


def values(n_measures=1):
    """Two models that differ by little on each image, and vary much between images."""
    stream = np.random.default_rng(0)
    image_N = stream.random(200)
    better_N = image_N + 0.05 + 0.02 * stream.normal(size=200)
    return {f"m{i}": {"good": better_N, "bad": image_N} for i in range(n_measures)}


def test_the_better_model_is_found_by_pairs_though_their_intervals_overlap():
    figures, pairs = compare_means(values(), seed=0)

    by_model = figures.set_index("model")
    assert by_model.loc["bad", "value"] == pytest.approx(values()["m0"]["bad"].mean())
    assert by_model.loc["bad", "high"] > by_model.loc["good", "low"]
    (pair,) = pairs.to_dict("records")
    assert (pair["first"], pair["second"]) == ("good", "bad")
    assert pair["difference"] == pytest.approx(0.05, abs=0.01)
    assert 0 < pair["low"] < pair["high"]
    assert pair["p_corrected"] < 0.05


def test_many_tests_have_resamples_enough_to_find_something():
    """With 1,000 resamples, the least p-value of 60 tests would be .06."""
    _, pairs = compare_means(values(60), seed=0)

    assert len(pairs) == 60
    assert (pairs["p_corrected"] < 0.05).all()


def test_nothing_measured_is_a_table_that_a_file_can_hold(tmp_path):
    for table in compare_means({}, seed=0):
        table.to_csv(tmp_path / "table.csv", index=False)
        again = pd.read_csv(tmp_path / "table.csv", float_precision="round_trip")
        assert ([*again.columns], len(again)) == ([*table.columns], 0)
