"""The stage SummariseRuns."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd
import zntrack

from jemtrack.errors import InputError
from jemtrack.evaluation.models.results import Tables, metrics_of, read_tables, write_metrics
from jemtrack.evaluation.statistics.seeds import over_folds, over_seeds
from jemtrack.parameters import parameters
from jemtrack.stages.stage import Stage

_MARK = re.compile(r"-(seed|fold)\d+$")
_OVER = {"seeds": over_seeds, "folds": over_folds}


@parameters
class SummaryArgs:
    """What the runs differ in.

    Attributes:
        runs: seeds, each of which decides the split, the initialisation and all noise; or folds
            of a cross-validation, whose training images overlap.
    """

    runs: Literal["seeds", "folds"] = "seeds"


class SummariseRuns(Stage):
    """Compute mean, spread and interval of each figure over several evaluations.

    Attributes:
        evaluations: the folders of tables of EvaluateX, one for each run; the runs' trainers have
            names that end in -seed1, -seed2 and so on, or -fold1, or are the same in all.
        params: what the runs differ in.
        metrics: a small file for each model, with the means.
        table: mean, standard deviation, interval and number of runs of each figure.
    """

    evaluations: list[Path] = zntrack.deps_path()
    params: SummaryArgs = zntrack.deps(default_factory=SummaryArgs)
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics", cache=False)
    table: Path = zntrack.outs_path(zntrack.nwd / "runs.csv")

    def compute(self) -> None:
        """Put the runs' figures side by side."""
        runs = [_figures(read_tables(path)) for path in self.evaluations]
        rows = []
        for model, measure in dict.fromkeys(key for run in runs for key in run):
            values = [run[model, measure] for run in runs if (model, measure) in run]
            if len(values) < len(runs):
                raise InputError(
                    f"{self.name}: {model}.{measure} is not in all of "
                    f"{', '.join(map(str, self.evaluations))}: run them by equal parameters"
                )
            spread = _OVER[self.params.runs](values)
            rows.append({"model": model, "measure": measure, **spread._asdict()})
        table = pd.DataFrame(rows)
        table.to_csv(self.table, index=False)
        # Each kind of outliers and score has an AUROC of its own: these are in the table alone.
        shown = table[~table["measure"].str.startswith("auroc.")]
        means = {
            str(model): dict(zip(some["measure"], some["mean"], strict=True))
            for model, some in shown.groupby("model", sort=False)
        }
        write_metrics(means, self.metrics)


def _figures(tables: Tables) -> dict[tuple[str, str], float]:
    """Read the measures of a run, by model and name; AUROC also by outliers and score.

    What tells the runs apart is removed from the models' names: `MaxEntropyL1-seed2`.
    """
    return {(_MARK.sub("", model), name): value for model, name, value in _measures(tables)}


def _measures(tables: Tables) -> Iterator[tuple[str, str, float]]:
    for model, measures in metrics_of(tables["measures"]).items():
        for name, value in measures.items():
            yield model, name, value
    for row in tables["outliers"].to_dict("records") if "outliers" in tables else ():
        yield row["model"], f"auroc.{row['partner']}.{row['score']}", row["auroc"]
