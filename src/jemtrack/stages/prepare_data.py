"""The stage PrepareData."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import zntrack
from pydantic import Field

from jemtrack.data.images import DataSplits
from jemtrack.data.sources.registry import SOURCES
from jemtrack.data.splits import ChosenFold, prepare
from jemtrack.errors import InputError, ParameterError
from jemtrack.parameters import parameters
from jemtrack.project.params import DVC, PARAMS, listed_inputs
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
        n_folds: parts of a cross-validation over all images, each tested on in one of them; 0: no
            cross-validation, and the source's own test images where it has some.
        fold: which of the parts is tested on, from 0.
    """

    dataset: Annotated[str, Field(min_length=1)] = "digits"
    data_root: Annotated[str, Field(min_length=1)] = "data"
    n_classes: Annotated[int, Field(ge=2)] = 10
    n_valid: Annotated[int, Field(ge=0)] = 180
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    n_folds: Annotated[int, Field(ge=0)] = 0
    fold: Annotated[int, Field(ge=0)] = 0

    @property
    def folder(self) -> Path:
        """Where the data set's files lie."""
        return Path(self.data_root) / self.dataset


class PrepareData(Stage):
    """Turns a source's files into tensors: training, validation and test images."""

    params: DataArgs = zntrack.deps(default_factory=DataArgs)
    images: Path = zntrack.outs_path(zntrack.nwd / "images.safetensors")

    def compute(self) -> None:
        """Read the files, split the images, write them into one file."""
        prepared(self.name, self.params).save(self.images)

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Name the folder of the data set's own files, and no other's."""
        params = parameters["params"]
        return [Path(str(params["data_root"]), str(params["dataset"])).as_posix()]


def prepared(stage: str, params: DataArgs) -> DataSplits:
    """Read the files and split the images as the parameters of `stage` say.

    Whether a set that jemtrack knows stands in dvc.yaml does not matter much, for its checksums
    are part of the code; a line reminds of it.

    Raises:
        InputError: when a file is missing or altered, a parameter does not fit the data, or
            dvc.yaml does not list a data set of the user's own.
    """
    try:
        fold = ChosenFold(params.n_folds, params.fold) if params.n_folds else None
        root, n_valid = Path(params.data_root), params.n_valid
        data = prepare(params.dataset, root, params.n_classes, n_valid, params.seed, fold)
    except ParameterError as error:
        raise InputError(f"{PARAMS}: {stage}.params.{error}") from error
    listed = listed_inputs(stage)
    if not any(params.folder.is_relative_to(path) for path in listed):
        if params.dataset not in SOURCES:
            raise InputError(
                f"{DVC}: {stage} does not depend on {params.folder}: type `jemtrack graph`"
            )
        print(
            f"{DVC}: {stage} still depends on {', '.join(map(str, listed))}, not on "
            f"{params.folder}: `jemtrack graph` updates it"
        )
    return data
