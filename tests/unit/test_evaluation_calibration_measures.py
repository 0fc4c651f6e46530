"""The object that a parameter file names."""

import json
import math

import pytest
import torch

from jemtrack.errors import InputError
from jemtrack.evaluation import calibration
from jemtrack.evaluation.calibration_measures import CalibrationMeasures
from jemtrack.parameters import build

LOGITS_NC = 3 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
LABELS_N = torch.arange(200) % 10


def test_metrics_are_the_five_functions():
    measured = CalibrationMeasures(n_bins=7)(LOGITS_NC, LABELS_N)

    probabilities_NC = LOGITS_NC.double().softmax(dim=1)
    assert measured.metrics == {
        "accuracy": calibration.accuracy(probabilities_NC, LABELS_N),
        "nll": calibration.nll(LOGITS_NC, LABELS_N),
        "brier": calibration.brier(probabilities_NC, LABELS_N),
        "ece": calibration.ece(probabilities_NC, LABELS_N, 7),
        "ece_bin_centre": calibration.ece_bin_centre(probabilities_NC, LABELS_N, 7),
    }
    assert measured.reliability.equals(calibration.reliability_table(probabilities_NC, LABELS_N, 7))


def test_metrics_are_plain_floats_that_json_gives_back():
    metrics = CalibrationMeasures()(LOGITS_NC, LABELS_N).metrics

    assert {type(value) for value in metrics.values()} == {float}
    assert json.loads(json.dumps(metrics)) == metrics


def test_twenty_bins_unless_told_otherwise():
    table = CalibrationMeasures()(LOGITS_NC, LABELS_N).reliability

    assert (table.bin_right - table.bin_left).to_numpy() == pytest.approx(0.05)


def test_uniform_logits_have_closed_forms():
    """Ten classes, each as probable and as frequent as the others: perfectly calibrated."""
    metrics = CalibrationMeasures()(torch.zeros(200, 10), LABELS_N).metrics

    assert metrics == pytest.approx(
        {"accuracy": 0.1, "nll": math.log(10), "brier": 0.9, "ece": 0, "ece_bin_centre": 0.025}
    )


def test_adding_a_constant_to_an_images_logits_changes_nothing():
    shift_N1 = torch.arange(200, dtype=torch.float64)[:, None]

    shifted = CalibrationMeasures()(LOGITS_NC.double() + shift_N1, LABELS_N).metrics

    assert shifted == pytest.approx(CalibrationMeasures()(LOGITS_NC, LABELS_N).metrics)


def test_diverged_model_is_refused():
    with pytest.raises(InputError, match="diverged"):
        CalibrationMeasures()(LOGITS_NC * math.nan, LABELS_N)


@pytest.mark.parametrize("n_bins", [0, 2.5, "20"])
def test_bad_number_of_bins_is_refused_by_name(n_bins):
    with pytest.raises(InputError, match=r"params\.yaml: EvaluateX\.measures\.n_bins must be"):
        build(CalibrationMeasures, {"n_bins": n_bins}, "params.yaml: EvaluateX.measures")
