"""The stage SummariseRuns."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import zntrack

from jemtrack.errors import InputError
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
    """Computes mean, spread and interval of each figure over several evaluations.

    Attributes:
        evaluations: the metrics files of EvaluateX, one a run; the runs' trainers have names
            that end in -seed1, -seed2 and so on, or -fold1, or are the same in all.
        params: what the runs differ in.
        metrics: an object a model with the means.
        table: mean, standard deviation, interval and number of runs of each figure.
    """

    evaluations: list[Path] = zntrack.deps_path()
    params: SummaryArgs = zntrack.deps(default_factory=SummaryArgs)
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics.json", cache=False)
    table: Path = zntrack.outs_path(zntrack.nwd / "runs.csv")

    def compute(self) -> None:
        """Put the runs' figures side by side."""
        runs = [_figures(json.loads(path.read_text())) for path in self.evaluations]
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
        means = {
            str(model): dict(zip(some["measure"], some["mean"], strict=True))
            for model, some in table.groupby("model", sort=False)
        }
        self.metrics.write_text(json.dumps(means, indent=2) + "\n")


def _figures(metrics: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Flatten the metrics of a run, by model and dotted measure.

    What tells the runs apart is taken from the models' names: `MaxEntropyL1-seed2`.
    """
    return {
        (_MARK.sub("", model), str(measure)): float(value)
        for model, figures in metrics.items()
        for measure, value in pd.json_normalize(figures).iloc[0].items()
    }
