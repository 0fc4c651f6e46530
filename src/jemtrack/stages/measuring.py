"""The stages that measure trained models side by side, each connected with what it needs."""

from typing import Any

from jemtrack.stages.draw_samples import DrawSamples
from jemtrack.stages.evaluate_x import EvaluateX
from jemtrack.stages.measure_robustness import MeasureRobustness
from jemtrack.stages.prepare_outliers import OutlierArgs, PrepareOutliers
from jemtrack.stages.stage import Stage


def measuring_stages(data: Any, models: list[Any], outliers: OutlierArgs) -> list[Stage]:
    """Declare the outliers, the robustness, the samples, and the evaluation that shows them all.

    `data` and `models` are outs of the stages that make them, inside the graph they are declared
    in; the first model is the classifier that judges the samples.
    """
    prepared = PrepareOutliers(data=data, params=outliers)
    robustness = MeasureRobustness(data=data, models=models)
    samples = DrawSamples(data=data, models=models, features=models[0])
    evaluated = EvaluateX(
        data=data,
        models=models,
        outliers=[prepared.images],
        robustness=[robustness.curves],
        samples=[samples.grids],
        sample_metrics=[samples.metrics],
    )
    return [prepared, robustness, samples, evaluated]
