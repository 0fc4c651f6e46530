"""Outlier detection of several models: figures by scikit-learn, pairs, degenerate scores."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from jemtrack.evaluation.measures.detection import Detection
from jemtrack.evaluation.models.outlier_detection import detect_outliers


def scores(seed, shift=0.0, n=80):
    stream = torch.Generator().manual_seed(seed)
    return {
        "log_density": (torch.randn(n, generator=stream) + shift).double().numpy(),
        "max_probability": (torch.rand(n, generator=stream) + shift / 4).double().numpy(),
    }


IMAGES = {"good": scores(1, 2.0), "bad": scores(2, 0.2)}
OUTLIERS = {
    "letters": {"good": scores(3, n=60), "bad": scores(4, n=60)},
    "uniform": {"good": scores(5, n=70), "bad": scores(6, n=70)},
}


def detected(**changed):
    return detect_outliers(**({"images": IMAGES, "outliers": OUTLIERS, "seed": 0} | changed))


def test_each_figure_is_scikit_learn_s_within_its_interval():
    figures = detected().figures

    assert len(figures) == 2 * 2 * 2
    for row in figures.itertuples():
        own = IMAGES[row.model][row.score]
        other = OUTLIERS[row.partner][row.model][row.score]
        truth = [1] * len(own) + [0] * len(other)
        assert row.auroc == pytest.approx(roc_auc_score(truth, np.concatenate([own, other])))
        assert row.auroc_low < row.auroc < row.auroc_high
        for name in ("aupr_in", "aupr_out", "fpr95"):
            low, value, high = (getattr(row, f"{name}{part}") for part in ("_low", "", "_high"))
            assert low <= value <= high
            assert low < high
        assert (row.n_images, row.n_outliers) == (len(own), len(other))


def test_pairs_are_corrected_and_find_the_better_model():
    detection = detected()
    pairs = detection.pairs

    assert len(pairs) == 2 * 2 + 1
    mean = pairs.iloc[-1]
    assert (mean["partner"], mean["score"]) == ("mean", "log_density")
    aurocs = [detection.mean_auroc(model) for model in ("good", "bad")]
    assert mean["difference"] == pytest.approx(aurocs[0] - aurocs[1])
    assert {*pairs["first"]} == {"good"}
    assert (pairs["difference"] > 0).all()
    assert (pairs["p_corrected"] >= pairs["p_value"]).all()
    dense = pairs[pairs["score"] == "log_density"]
    assert (dense["p_corrected"] < 0.05).all()
    assert (dense["low"] > 0).all()


def test_a_model_is_not_told_from_itself():
    same = detected(
        images={"one": IMAGES["bad"], "two": IMAGES["bad"]},
        outliers={"x": {"one": scores(4), "two": scores(4)}},
    )

    assert (same.pairs["difference"] == 0).all()
    assert (same.pairs["p_value"] == 1).all()


def test_one_model_has_no_pairs_and_roc_curves_bear_their_names():
    one = detected(
        images={"good": IMAGES["good"]},
        outliers={name: {"good": each["good"]} for name, each in OUTLIERS.items()},
    )

    assert len(one.pairs) == 0
    curves = one.roc["good"].groupby(["partner", "score"])
    assert len(curves) == 4
    for (partner, score), rows in curves:
        expected = Detection(IMAGES["good"][score], OUTLIERS[partner]["good"][score]).roc()
        assert rows["true_positive_rate"].tolist() == expected["true_positive_rate"].tolist()
