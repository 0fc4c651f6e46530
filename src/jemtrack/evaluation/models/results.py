"""The results of an evaluation, in tables: what `EvaluateX` writes and `Report` reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

SIGNIFICANT = 0.05  # a corrected p-value below it counts as a difference

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class EvaluationResults:
    """The results of several models on the same images.

    Attributes:
        metrics: by model, one number a measure.
        tables: `figures` (the main measures with intervals) and `tests` (which models differ), as
            in `Comparison`; `confusion`, a row a model, `label` and `predicted` class with the
            `count` of images; if there are outliers, `outliers` and `tests_outliers`, as in
            `OutlierDetection`.
        calibration: by model, the rows of a reliability diagram.
        energies: by model, histograms of the energies of images, training images and outliers.
        risk_coverage: by model, the risk of the most confident part of the images.
        roc: by model, the ROC curves of each score against each kind of outliers, if there are any.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    tables: Tables
    calibration: Tables
    energies: Tables
    risk_coverage: Tables
    roc: Tables

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return [*self.metrics]


FOLDERS = ("tables", "calibration", "energies", "risk_coverage", "roc")


def write_tables(tables: Tables, folder: Path) -> None:
    """Write each table into a CSV file of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)


def read_tables(folder: Path, order: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Read the CSV files of a folder, first those in `order`; a word such as "none" stays one."""
    found = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    names = dict.fromkeys([name for name in order if name in found] + [*found])
    return {name: pd.read_csv(found[name], keep_default_na=False) for name in names}
