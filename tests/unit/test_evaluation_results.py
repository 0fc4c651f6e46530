"""All results of several models' outputs, and their tables in files and back."""

import pandas as pd
import pytest
import torch

from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.models.evaluate import MEASURED, TRAIN, VALID, Statistics, evaluate
from jemtrack.evaluation.models.model_outputs import ModelOutputs
from jemtrack.evaluation.models.results import FOLDERS, read_tables, write_tables

LABELS = torch.arange(200) % 4


def outputs_of(seed: int) -> ModelOutputs:
    stream = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(200, 4, generator=stream)
    mass, distance = -torch.rand(2, 200, generator=stream)
    return ModelOutputs(logits, logits.logsumexp(1), mass, distance)


def results(sets=(), labels=(MEASURED,), n_bins=20):
    return evaluate(
        {
            model: {name: outputs_of(seed + i) for i, name in enumerate((MEASURED, TRAIN, *sets))}
            for seed, model in ((0, "one"), (9, "other"))
        },
        dict.fromkeys(labels, LABELS),
        split="test",
        measures=CalibrationMeasures(n_bins=n_bins),
        statistics=Statistics(seed=0, n_resamples=100, level=0.9),
    )


@pytest.mark.parametrize("n_bins", [3, 20])
def test_all_calibration_errors_are_in_the_bins_that_were_asked_for(n_bins):
    found = results(n_bins=n_bins)

    figures = found.tables["figures"].set_index(["model", "measure"])["value"]
    assert figures["one", "ece"] == found.metrics["one"]["ece"]
    assert set(found.calibration["one"]["ece"]) == {found.metrics["one"]["ece"]}
    assert len(found.calibration["one"]) <= n_bins


def test_the_figures_are_the_metrics_to_the_last_digit():
    found = results()

    for row in found.tables["figures"].to_dict("records"):
        assert row["value"] == found.metrics[row["model"]][row["measure"]]


def test_what_is_not_given_is_not_measured():
    plain, whole = results(), results(["letters", VALID], [MEASURED, VALID])

    assert {*whole.metrics["one"]} - {*plain.metrics["one"]} == {
        "auroc", "valid_nll", "temperature", "nll_at_temperature", "brier_at_temperature",
        "ece_at_temperature",
    }  # fmt: skip
    assert {*whole.tables} - {*plain.tables} == {"outliers", "tests_outliers"}
    assert ([*plain.roc], [*whole.roc]) == ([], ["one", "other"])
    # The validation images are no outliers, and have no energies.
    assert [*whole.tables["outliers"]["partner"].unique()] == ["letters"]
    assert [*whole.energies["one"]["images"].unique()] == ["test", "train", "letters"]


def test_tables_come_back_from_their_files(tmp_path):
    found = results(["letters"])

    for name in FOLDERS:
        write_tables(getattr(found, name), tmp_path / name)

        again = read_tables(tmp_path / name, order=["other"])
        assert next(iter(again)) == ("confusion" if name == "tables" else "other")
        assert again.keys() == getattr(found, name).keys()
        for key, table in again.items():
            written = getattr(found, name)[key].reset_index(drop=True)
            pd.testing.assert_frame_equal(table, written, rtol=1e-15)
