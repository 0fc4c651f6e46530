"""The results of an evaluation, in tables: what `EvaluateX` writes and `Report` reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

SIGNIFICANT = 0.05  # a corrected p-value below it counts as a difference
# The measures that are in tables alone: with them, DVC's tables would not fit a screen.
DETAILS = frozenset(
    {
        "top_k_accuracy", "brier", "brier_reliability", "brier_resolution", "ece_bin_centre",
        "ece_equal_mass", "ece_class_wise", "aurc", "excess_aurc", "temperature",
        "nll_at_temperature", "brier_at_temperature", "ece_at_temperature", "valid_nll",
    }
)  # fmt: skip

Tables = Mapping[str, pd.DataFrame]
Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class EvaluationResults:
    """The results of several models on the same images.

    Attributes:
        metrics: by model, one number for each measure. `auroc` is the mean over the kinds of
            outliers by the score log p~(x); `valid_nll` is the NLL of the validation images.
        tables: `measures` (all metrics); `figures` (the main ones with intervals) and `tests`
            (which models differ), as in `Comparison`; `confusion`, a row for each model, `label`
            and `predicted` class with the `count` of images; if there are outliers, `outliers` and
            `tests_outliers`, as in `OutlierDetection`.
        calibration: by model, the rows of a reliability diagram.
        energies: by model, histograms of the energies of images, training images and outliers.
        risk_coverage: by model, the risk of the most confident part of the images.
        roc: by model, the ROC curves of each score against each kind of outliers, if there are any.
    """

    metrics: Metrics
    tables: Tables
    calibration: Tables
    energies: Tables
    risk_coverage: Tables
    roc: Tables

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return [*self.metrics]


def write_metrics(metrics: Metrics, folder: Path) -> None:
    """Write a JSON file for each model, with all measures but the `DETAILS`.

    All files have the same keys: in DVC's tables a model is a row, and a measure a column.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for model, measures in metrics.items():
        shown = {name: value for name, value in measures.items() if name not in DETAILS}
        (folder / f"{model}.json").write_text(json.dumps(shown, indent=2) + "\n")


def measures_table(metrics: Metrics) -> pd.DataFrame:
    """Make a table of all measures: a row for each model, with the column `model` first."""
    return pd.DataFrame([{"model": model, **measures} for model, measures in metrics.items()])


def metrics_of(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Read a `measures_table`; a measure that a model lacks is left out."""
    rows = table.set_index("model").to_dict("index").items()
    return {
        str(model): {str(name): value for name, value in row.items() if pd.notna(value)}
        for model, row in rows
    }


FOLDERS = ("tables", "calibration", "energies", "risk_coverage", "roc")


def write_tables(tables: Tables, folder: Path) -> None:
    """Write each table into a CSV file of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)


def read_tables(folder: Path, order: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Read the CSV files of a folder, first those in `order`."""
    found = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    names = dict.fromkeys([name for name in order if name in found] + [*found])
    # An empty field is NaN, but a word such as "none" stays one.
    return {name: pd.read_csv(found[name], keep_default_na=False, na_values=[""]) for name in names}
