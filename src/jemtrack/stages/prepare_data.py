"""The stage PrepareData."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import zntrack
from pydantic import Field

from jemtrack.data.prepare import prepare
from jemtrack.parameters import parameters
from jemtrack.stages.stage import Stage


@parameters
class DataArgs:
    """Which images, and how they are split.

    Attributes:
        dataset: a source of `jemtrack data`, or a set of your own that it put in place.
        data_root: the folder that holds a folder for each data set.
        n_classes: how many classes there are; labels run from 0.
        n_valid: images set aside for validation.
        seed: draws the split; the trainers' initialisation, batches and noise follow from it.
    """

    dataset: Annotated[str, Field(min_length=1)] = "digits"
    data_root: Annotated[str, Field(min_length=1)] = "data"
    n_classes: Annotated[int, Field(ge=2)] = 10
    n_valid: Annotated[int, Field(ge=0)] = 180
    seed: Annotated[int, Field(ge=0)] = 1


class PrepareData(Stage):
    """Turns a source's files into tensors: training, validation and test images."""

    params: DataArgs = zntrack.deps(default_factory=DataArgs)
    images: Path = zntrack.outs_path(zntrack.nwd / "images.safetensors")

    def compute(self) -> None:
        """Read the files, split the images, write them into one file."""
        params = self.params
        data = prepare(
            params.dataset, Path(params.data_root), params.n_classes, params.n_valid, params.seed
        )
        data.save(self.images)

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Name the folder of the data set's own files, and no other's."""
        params = parameters["params"]
        return [f"{params['data_root']}/{params['dataset']}"]
