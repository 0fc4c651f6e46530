"""The graph of the main job: PrepareData -> three trainers -> EvaluateX -> Report."""

from typing import Any

from jemtrack.errors import InputError
from jemtrack.parameters import format_value
from jemtrack.project import graph as files
from jemtrack.stages.deploy import Deploy
from jemtrack.stages.draw_samples import DrawSamples
from jemtrack.stages.evaluate_x import EvaluateX
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.measure_robustness import MeasureRobustness
from jemtrack.stages.prepare_data import PrepareData
from jemtrack.stages.prepare_outliers import OutlierArgs, PrepareOutliers
from jemtrack.stages.report import Report
from jemtrack.stages.stage import Stage
from jemtrack.stages.trainer import Trainer
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented


def measuring_stages(data: Any, trainers: list[Trainer], outliers: OutlierArgs) -> list[Stage]:
    """Declare the outliers, the robustness, the samples, the evaluation and the report on them all.

    `data` is an out of the graph's other stages; the first trainer's model is the classifier that
    judges the samples.
    """
    models = [trainer.model for trainer in trainers]
    prepared = PrepareOutliers(data=data, params=outliers)
    robustness = MeasureRobustness(data=data, models=models)
    samples = DrawSamples(data=data, models=models, features=models[0])
    evaluated = EvaluateX(data=data, models=models, outliers=[prepared.images])
    report = Report(
        facts=evaluated.facts,
        tables=evaluated.tables,
        calibration=evaluated.calibration,
        energies=evaluated.energies,
        risk_coverage=evaluated.risk_coverage,
        roc=evaluated.roc,
        outputs=evaluated.outputs,
        data=data,
        models=models,
        histories=[trainer.history for trainer in trainers],
        outliers=[prepared.images],
        robustness=[robustness.curves],
        robustness_tables=[robustness.tables],
        samples=[samples.grids],
        sample_metrics=[samples.metrics],
    )
    return [prepared, robustness, samples, evaluated, report]


def nodes() -> list[Stage]:
    """Declare the stages with the parameters that they ship with."""
    prepared = PrepareData()
    trainers = [
        XEntropyAugmented(data=prepared.images),
        MaxEntropyL1(data=prepared.images),
        MaxEntropyL2(data=prepared.images),
    ]
    return [prepared, *trainers, *measuring_stages(prepared.images, trainers, OutlierArgs())]


def deployment(stages: list[Stage], trainer: str) -> Deploy:
    """Declare the bundle of a trainer's model, which is no part of the default graph.

    Raises:
        InputError: if there is no such trainer.
    """
    found: dict[str, Any] = {stage.name: stage for stage in stages}
    if not isinstance(found.get(trainer), Trainer):
        trainers = ", ".join(name for name, stage in found.items() if isinstance(stage, Trainer))
        raise InputError(f"--deploy must be one of {trainers}, got {format_value(trainer)}")
    return Deploy(
        data=found["PrepareData"].images,
        model=found[trainer].model,
        outliers=[found["PrepareOutliers"].images],
        tables=[found["EvaluateX"].tables],
    )


def write_graph(
    *, run: bool = False, no_exec: bool | None = None, deploy: str | None = None
) -> None:
    """Write the whole graph into dvc.yaml, params.yaml and zntrack.json; `run` it if asked.

    What was changed in the files by hand stays. `no_exec` is the older spelling of `not run`;
    `deploy` is the trainer whose model is to have a bundle, if any.
    """
    stages = nodes()
    if deploy:
        stages.append(deployment(stages, deploy))
    files.write_graph(stages, run=run, no_exec=no_exec)
