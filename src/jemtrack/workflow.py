"""The graph of the main job: PrepareData -> three trainers -> EvaluateX."""

from jemtrack.graph import files
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.measuring import measuring_stages
from jemtrack.stages.prepare_data import PrepareData
from jemtrack.stages.prepare_outliers import OutlierArgs
from jemtrack.stages.stage import Stage
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented


def nodes() -> list[Stage]:
    """Declare the stages with the parameters that they ship with."""
    prepared = PrepareData()
    trainers = [
        XEntropyAugmented(data=prepared.images),
        MaxEntropyL1(data=prepared.images),
        MaxEntropyL2(data=prepared.images),
    ]
    models = [trainer.model for trainer in trainers]
    return [prepared, *trainers, *measuring_stages(prepared.images, models, OutlierArgs())]


def write_graph(*, run: bool = False, no_exec: bool | None = None) -> None:
    """Write the whole graph into dvc.yaml, params.yaml and zntrack.json; `run` it if asked.

    What was changed in the files by hand stays. `no_exec` is the older spelling of `not run`.
    """
    files.write_graph(nodes(), run=run, no_exec=no_exec)
