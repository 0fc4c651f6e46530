"""The graph of the four trainers on a data set that others publish on, in a folder of its own."""

from collections.abc import Collection
from typing import Any, Literal, NamedTuple

from jemtrack.data.outliers import MADE
from jemtrack.jem.objectives.sampled_jem import SampledJEMObjective
from jemtrack.project import graph as files
from jemtrack.project.graph import ROOT, workflow_folder
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.prepare_data import DataArgs, PrepareData
from jemtrack.stages.prepare_outliers import OutlierArgs
from jemtrack.stages.sampled_jem import SampledJEM
from jemtrack.stages.stage import Stage
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented
from jemtrack.workflows.default import measuring_stages

DATASETS = ("fashion-mnist", "mnist")


class Scale(NamedTuple):
    """What fits a machine: the trainers' parameters, and what SampledJEM has in place of some."""

    trainers: dict[str, Any]
    sampled: dict[str, Any]


_SCALES = {
    "cpu": Scale(
        trainers={
            "depth": 10,
            "width": 1,
            "batch_size": 64,
            "n_epochs": 3,
            "lr": 4e-3,
            "warm_up_steps": 200,
            "schedule": "cosine",
        },
        sampled={"n_epochs": 1, "n_steps": 10, "lr": 1e-3},
    ),
    "gpu": Scale(
        trainers={
            "depth": 28,
            "width": 10,
            "batch_size": 64,
            "n_epochs": 30,
            "lr": 1e-4,
            "device": "cuda",
            "precision": "bf16-mixed",
        },
        sampled={"warm_up_steps": 1000},
    ),
}


def nodes(dataset: str, scale: Literal["cpu", "gpu"] = "cpu") -> list[Stage]:
    """Declare the stages for a data set, with parameters that fit two CPU cores or a large GPU."""
    chosen = _SCALES[scale]
    of_trainers = {"sigma": 0.03, **chosen.trainers}
    params = TrainArgs(**of_trainers)
    data = DataArgs(dataset=dataset, data_root=str(ROOT / "data"), n_valid=5000)
    prepared = PrepareData(params=data)
    trainers = [
        XEntropyAugmented(data=prepared.images, params=params),
        MaxEntropyL1(data=prepared.images, params=params),
        MaxEntropyL2(data=prepared.images, params=params),
        SampledJEM(
            data=prepared.images,
            params=TrainArgs(**{**of_trainers, **chosen.sampled}),
            objective=SampledJEMObjective(energy_weight=0.1),
            recipe={"divergence": {"action": "retry"}},
        ),
    ]
    other = next(each for each in DATASETS if each != dataset)
    outliers = OutlierArgs(partners=[other, *MADE], data_root=str(ROOT / "data"))
    return [prepared, *trainers, *measuring_stages(prepared.images, trainers, outliers)]


def write_graph(
    dataset: str,
    scale: Literal["cpu", "gpu"] = "cpu",
    *,
    run: bool = False,
    skip: Collection[str] = (),
) -> None:
    """Write the graph into `workflows/<dataset>/`, from the project's root; `run` it if asked.

    What was changed in its files by hand stays.
    """
    with workflow_folder(dataset):
        files.write_graph(nodes(dataset, scale), run=run, skip=skip)
