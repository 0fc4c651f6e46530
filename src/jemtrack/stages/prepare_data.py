"""The stage PrepareData: read a data set and split it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import zntrack
from pydantic import Field

from jemtrack.data.images import DataSplits
from jemtrack.data.sources.registry import SOURCES
from jemtrack.data.splits import ChosenFold, prepare
from jemtrack.errors import InputError, ParameterError
from jemtrack.parameters import Name, PathText, parameters
from jemtrack.project.params import PARAMS
from jemtrack.shared.progress import say
from jemtrack.stages.stage import Stage


@parameters
class DataArgs:
    """The data set and its split.

    Attributes:
        dataset: name of a data set that `jemtrack data` has put into `data_root`.
        data_root: folder with a folder for each data set.
        n_classes: number of classes; labels run from 0.
        n_valid: number of images for validation.
        seed: seed of the split, and of the trainers' initialisation, batches and noise.
        n_folds: number of folds of a cross-validation over all images. 0 means none: the test
            images are then those of the data set, if it has any.
        fold: the fold to test on, from 0.
    """

    dataset: Name = "digits"
    data_root: PathText = "data"
    n_classes: Annotated[int, Field(ge=2)] = 10
    n_valid: Annotated[int, Field(ge=0)] = 180
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    n_folds: Annotated[int, Field(ge=0)] = 0
    fold: Annotated[int, Field(ge=0)] = 0

    @property
    def folder(self) -> Path:
        """The folder of the data set's files."""
        return Path(self.data_root) / self.dataset


class PrepareData(Stage):
    """Convert the files of a data set to tensors: training, validation and test images."""

    params: DataArgs = zntrack.deps(default_factory=DataArgs)
    images: Path = zntrack.outs_path(zntrack.nwd / "images.safetensors")

    def compute(self) -> None:
        """Read the files, split the images, and write them to one safetensors file."""
        say(f"Reading {self.params.folder}")
        data = prepared(self.name, self.params)
        data.save(self.images)
        say(
            f"{len(data.train)} training, {len(data.valid)} validation and {len(data.test)} test "
            f"images of {data.n_classes} classes"
        )

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Return the folder of this data set alone: another data set leaves the stage as it is."""
        params = parameters["params"]
        return [Path(str(params["data_root"]), str(params["dataset"])).as_posix()]

    @classmethod
    def unpinned_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Return the folder of the user's own data set: of known ones, the code has checksums."""
        is_known = parameters["params"]["dataset"] in SOURCES
        return [] if is_known else cls.input_paths(parameters)


def prepared(stage: str, params: DataArgs) -> DataSplits:
    """Read and split the data set that the parameters of `stage` choose.

    Raises:
        InputError: if a file is missing or altered, or a parameter does not fit the data.
    """
    try:
        fold = ChosenFold(params.n_folds, params.fold) if params.n_folds else None
        root, n_valid = Path(params.data_root), params.n_valid
        data = prepare(params.dataset, root, params.n_classes, n_valid, params.seed, fold)
    except ParameterError as error:
        raise InputError(f"{PARAMS}: {stage}.params.{error}") from error
    return data
