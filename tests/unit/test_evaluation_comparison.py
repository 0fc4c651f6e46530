"""Classifiers side by side."""

import numpy as np
import pytest
import torch
from stated import accuracy, brier, correct, ece, nll

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.models.comparison import MEASURES, compare_classifiers
from jemtrack.evaluation.statistics.paired_tests import holm, mcnemar


def drawn(n_images=300, seed=0):
    """Logits of a good model and labels that follow them."""
    stream = torch.Generator().manual_seed(seed)
    logits_NC = 3 * torch.randn(n_images, 5, generator=stream)
    return logits_NC, torch.multinomial(logits_NC.softmax(1), 1, generator=stream).squeeze(1)


def test_figures_are_the_measures_with_intervals_around_them():
    logits_NC, labels_N = drawn()
    probabilities_NC = logits_NC.double().softmax(1)

    figures = compare_classifiers({"one": logits_NC}, labels_N, seed=0).figures

    expected = [f(probabilities_NC, labels_N) for f in (accuracy, brier, ece)]
    found = figures.set_index("measure")["value"]
    assert found[["accuracy", "brier", "ece"]].tolist() == pytest.approx(expected)
    assert found["nll"] == pytest.approx(nll(logits_NC.double(), labels_N))
    metrics = CalibrationMeasures()(logits_NC, labels_N).metrics
    assert found.to_dict() == {measure: metrics[measure] for measure in MEASURES}
    assert (figures["low"] < figures["value"]).all()
    assert (figures["value"] < figures["high"]).all()


def test_pairs_say_which_models_differ_and_by_which_test():
    logits_NC, labels_N = drawn()
    noise_NC = torch.randn(logits_NC.shape, generator=torch.Generator().manual_seed(1))
    models = {"good": logits_NC, "same": logits_NC + 0.01 * noise_NC, "bad": 5 * noise_NC}

    pairs = compare_classifiers(models, labels_N, seed=0).pairs

    assert len(pairs) == len(MEASURES) * 3
    np.testing.assert_allclose(pairs["p_corrected"], holm(pairs["p_value"]))
    by_pair = pairs.set_index(["first", "second", "measure"]).sort_index()
    assert (by_pair.loc[("good", "bad"), "p_corrected"] < 0.05).all()
    assert (by_pair.loc[("good", "same"), "p_corrected"] > 0.05).all()
    test = mcnemar(correct(logits_NC, labels_N), correct(models["bad"], labels_N))
    row = by_pair.loc[("good", "bad", "accuracy")]
    assert row[["difference", "low", "high", "p_value"]].tolist() == pytest.approx(test)
    assert row["test"] == "McNemar"
    assert by_pair.loc[("good", "bad", "nll"), "difference"] == pytest.approx(
        nll(logits_NC.double(), labels_N) - nll(models["bad"].double(), labels_N)
    )


def test_the_difference_of_calibration_errors_is_held_though_few_images_hide_it():
    """Chance adds to the calibrated model's error, so that the two look more alike than they are.

    The bootstrap alone would hold the difference that endless images have in one case of three.
    """
    logits_NC, labels_N = drawn(200_000)
    true_errors = [ece(each.double().softmax(1), labels_N) for each in (logits_NC, 2 * logits_NC)]
    truth = true_errors[1] - true_errors[0]
    held, seen = [], []
    for seed in range(1, 31):
        logits_NC, labels_N = drawn(200, seed)
        models = {"too sure": 2 * logits_NC, "calibrated": logits_NC}
        pairs = compare_classifiers(models, labels_N, seed=seed, n_resamples=200).pairs
        row = pairs.set_index("measure").loc["ece"]
        seen.append(row["difference"])
        held.append(row["low"] <= truth <= row["high"])

    assert np.mean(seen) < 0.8 * truth
    assert sum(held) >= 27


def test_the_seed_decides_and_one_model_has_no_pairs():
    logits_NC, labels_N = drawn(50)
    one, again, other = (
        compare_classifiers({"one": logits_NC}, labels_N, seed=seed) for seed in (1, 1, 2)
    )

    assert one.figures.equals(again.figures)
    assert not one.figures.equals(other.figures)
    assert len(one.pairs) == 0


@pytest.mark.parametrize("label", [0, 1])
def test_one_image_of_a_sure_model_has_figures(label):
    logits_NC = torch.tensor([[1000.0, 0.0]])
    models = {"one": logits_NC, "two": -logits_NC}

    found = compare_classifiers(models, torch.tensor([label]), seed=0)

    assert np.isfinite(found.figures[["value", "low", "high"]].to_numpy()).all()
    assert (found.figures["low"] <= found.figures["value"]).all()
    assert found.pairs["p_value"].between(0, 1).all()


def test_no_models_are_refused():
    with pytest.raises(InputError, match="no models"):
        compare_classifiers({}, torch.tensor([0]), seed=0)


def test_the_models_must_be_of_the_same_images():
    with pytest.raises(InputError, match="one label an image, got 2 images and labels of shape"):
        compare_classifiers(
            {"one": torch.ones(3, 2), "two": torch.ones(2, 2)}, torch.tensor([0, 1, 0]), seed=0
        )
