"""The stage PrepareOutliers."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import zntrack
from pydantic import Field

from jemtrack.data.images import DataSplits, save_outliers
from jemtrack.data.outliers import MADE, check_partners, make_outliers
from jemtrack.parameters import Name, PathText, parameters
from jemtrack.shared.hardware import check_memory
from jemtrack.shared.progress import say
from jemtrack.stages.stage import Stage


@parameters
class OutlierArgs:
    """Which images a model is to tell from those of its data set.

    Attributes:
        partners: any of letters, permuted, interpolated and uniform, which are made, and of the
            data sets of `jemtrack data` with images of the same shape.
        n_images: of each partner, or fewer where it has fewer.
        data_root: the folder that holds a folder for each data set.
    """

    partners: list[Name] = field(default_factory=lambda: [*MADE])
    n_images: Annotated[int, Field(ge=1)] = 1000
    data_root: PathText = "data"


class PrepareOutliers(Stage):
    """Make images of the data set's shape that no trainer has seen, a set for each partner.

    Attributes:
        data: the file of prepared images.
        params: which partners.
        images: a file of uint8 images, a tensor a partner.
    """

    data: Path = zntrack.deps_path()
    params: OutlierArgs = zntrack.deps(default_factory=OutlierArgs)
    images: Path = zntrack.outs_path(zntrack.nwd / "outliers.safetensors")

    def compute(self) -> None:
        """Make or read the images, and write them into one file."""
        params, data = self.params, DataSplits.load(self.data)
        check_outliers(data, params)
        say(f"Preparing outliers: {', '.join(params.partners)}")
        outliers = make_outliers(data, params.partners, params.n_images, Path(params.data_root))
        save_outliers(outliers, self.images)

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Name the folders of the data sets that are partners."""
        params = parameters["params"]
        partners = [str(name) for name in params["partners"] if name not in MADE]
        return [Path(str(params["data_root"]), name).as_posix() for name in partners]


def check_outliers(data: DataSplits, params: OutlierArgs) -> None:
    """Check that the partners are there, and that as many of their images can be in memory.

    Raises:
        ParameterError: if a partner is not known, or has images of another shape.
        InputError: if a file of another data set is missing or altered.
    """
    n_bytes = params.n_images * data.test.images_NCHW.shape[1:].numel()
    check_memory("n_images", params.n_images, n_bytes)
    check_partners(data, params.partners, Path(params.data_root))
