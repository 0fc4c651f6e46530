"""Graphs of the main job several times over: by seeds, or by the folds of a cross-validation."""

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from jemtrack.errors import InputError
from jemtrack.project import graph as files
from jemtrack.project.graph import ROOT, workflow_folder
from jemtrack.stages.evaluate_x import EvaluateX
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.prepare_data import DataArgs, PrepareData
from jemtrack.stages.prepare_outliers import PrepareOutliers
from jemtrack.stages.stage import Stage
from jemtrack.stages.summarise_runs import SummariseRuns, SummaryArgs
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented

Workflow = Literal["seeds", "cross-validation"]


def nodes(workflow: Workflow, count: int) -> list[Stage]:
    """Declare `count` runs of the three trainers, an evaluation each, and a summary of them.

    Raises:
        InputError: when there are fewer than two.
    """
    if count < 2:
        raise InputError(f"--runs must be 2 or more, for one run has no spread, got {count}")
    stages: list[Stage] = []
    evaluations = []
    for number in range(count):
        data = DataArgs(data_root=str(ROOT / "data"))
        if workflow == "seeds":
            data = replace(data, seed=number + 1)
        else:
            data = replace(data, n_folds=count, fold=number)
        mark = f"{'seed' if workflow == 'seeds' else 'fold'}{number + 1}"
        prepared = PrepareData(name=f"PrepareData-{mark}", params=data)
        trainers = [
            trainer(name=f"{trainer.__name__}-{mark}", data=prepared.images)
            for trainer in (XEntropyAugmented, MaxEntropyL1, MaxEntropyL2)
        ]
        outliers = PrepareOutliers(name=f"PrepareOutliers-{mark}", data=prepared.images)
        evaluated = EvaluateX(
            name=f"EvaluateX-{mark}",
            data=prepared.images,
            models=[trainer.model for trainer in trainers],
            outliers=[outliers.images],
        )
        stages += [prepared, *trainers, outliers, evaluated]
        evaluations.append(evaluated.tables)
    params = SummaryArgs(runs="seeds" if workflow == "seeds" else "folds")
    summary = SummariseRuns(evaluations=evaluations, params=params)
    return [*stages, summary]


def write_graph(
    workflow: Workflow, count: int, *, run: bool = False, skip: Collection[str] = ()
) -> None:
    """Write the graph into `workflows/<workflow>/`, from the project's root.

    What was changed in its files by hand stays; `run` it if asked, but not the stages to `skip`.
    """
    with workflow_folder(workflow):
        files.write_graph(nodes(workflow, count), run=run, skip=skip)
