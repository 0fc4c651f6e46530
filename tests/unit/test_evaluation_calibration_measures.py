"""The object that a parameter file names."""

import json
import math
import statistics

import pytest
import torch
from stated import accuracy, brier, correct, ece, ece_bin_centre, nll, reliability_table

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.binning import equal_mass
from jemtrack.evaluation.measures.brier_decomposition import brier_decomposition
from jemtrack.evaluation.measures.calibration import class_wise_calibration_error
from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.measures.scores import top_k_accuracy
from jemtrack.evaluation.measures.selective import aurc, excess_aurc
from jemtrack.parameters import build

LOGITS_NC = 3 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
LABELS_N = torch.arange(200) % 10


def test_metrics_are_those_of_the_functions():
    measured = CalibrationMeasures(n_bins=7, top_k=2)(LOGITS_NC, LABELS_N)

    probabilities_NC = LOGITS_NC.double().softmax(dim=1)
    right_N = correct(LOGITS_NC, LABELS_N)
    parts = brier_decomposition(probabilities_NC, LABELS_N, 7)
    given = (probabilities_NC, LABELS_N, 7)
    assert measured.metrics == {
        "accuracy": accuracy(probabilities_NC, LABELS_N),
        "top_k_accuracy": top_k_accuracy(LOGITS_NC, LABELS_N, 2),
        "nll": nll(LOGITS_NC.double(), LABELS_N),
        "brier": brier(probabilities_NC, LABELS_N),
        "brier_reliability": parts.reliability,
        "brier_resolution": parts.resolution,
        "ece": ece(*given),
        "ece_bin_centre": ece_bin_centre(*given),
        "ece_equal_mass": ece(*given, equal_mass),
        "ece_class_wise": class_wise_calibration_error(*given),
        "aurc": aurc(probabilities_NC.amax(dim=1).numpy(), right_N),
        "excess_aurc": excess_aurc(probabilities_NC.amax(dim=1).numpy(), right_N),
    }
    rows = reliability_table(*given)
    assert measured.reliability[[*rows]].equals(rows)
    assert {"accuracy_low", "accuracy_high"} < {*measured.reliability}


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

    errors = {"ece": 0, "ece_bin_centre": 0.025, "ece_equal_mass": 0, "ece_class_wise": 0}
    # Nine of ten are wrong at every coverage; in the best order the first 20 would be right.
    best = statistics.fmean(max(k - 20, 0) / k for k in range(1, 201))
    ranks = {"top_k_accuracy": 0.3, "aurc": 0.9, "excess_aurc": 0.9 - best}
    brier = {"brier": 0.9, "brier_reliability": 0, "brier_resolution": 0}
    assert metrics == pytest.approx(
        {"accuracy": 0.1, "nll": math.log(10), **brier, **errors, **ranks}
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
