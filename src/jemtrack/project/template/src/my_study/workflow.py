"""The graph of this project, which `jemtrack graph` writes into dvc.yaml and params.yaml."""

from jemtrack.stages.prepare_data import PrepareData
from jemtrack.stages.prepare_outliers import OutlierArgs
from jemtrack.stages.stage import Stage
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented
from jemtrack.workflows.default import measuring_stages

from my_study.stages import MaxEntropyHuber


def nodes() -> list[Stage]:
    """Declare the stages with the parameters that params.yaml has until you change them there."""
    prepared = PrepareData()
    small = TrainArgs(width=1, n_epochs=10)  # for a first run
    trainers = [
        XEntropyAugmented(data=prepared.images, params=small),
        MaxEntropyHuber(data=prepared.images, params=small),
    ]
    return [prepared, *trainers, *measuring_stages(prepared.images, trainers, OutlierArgs())]
