"""Exporting and converting from Python, over the functions that `jemtrack deploy` uses."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from jemtrack.data.images import DataSplits
from jemtrack.deploy.args import DeployArgs
from jemtrack.deploy.bundle import Exported, Material, write_bundle
from jemtrack.deploy.formats import Source, available, written
from jemtrack.deploy.onnx_file import exported_module
from jemtrack.deploy.predict import (
    INPUT,
    MODEL,
    BundleError,
    open_session,
    read_checked,
    read_description,
)
from jemtrack.errors import InputError
from jemtrack.shared.evaluation_mode import evaluation_mode

_TOLERANCE = 1e-4


class ModelExporter:
    """Exports a trained model, fitted and measured on the data that it was trained on.

    The ONNX models of the bundle are checked against PyTorch. Other formats are written as they
    are: `jemtrack deploy` checks those.

    Args:
        model: a trainer's model.safetensors.
        data: the prepared images, or their file.
        outliers: uint8 images (N, C, H, W), by kind.
        args: what the bundle promises.

    Raises:
        InputError: if the model and the data cannot be used, or do not fit together.
    """

    def __init__(
        self,
        model: str | Path,
        data: DataSplits | str | Path,
        outliers: Mapping[str, Tensor] | None = None,
        args: DeployArgs | None = None,
    ) -> None:
        data = data if isinstance(data, DataSplits) else DataSplits.load(Path(data))
        self._material = Material(Path(model), data, outliers or {}, args or DeployArgs())
        self._exported = Exported.of(self._material)

    def export(
        self, folder: str | Path, format: str = "onnx", precision: str | None = None
    ) -> Path:
        """Write the bundle into `folder`, with the model in this format; return the latter's file.

        Raises:
            InputError: if the format is refused or not available here, with the reason; in the
                latter case nothing is written.
        """
        available(format, precision)
        folder = Path(folder)
        description = write_bundle(self._exported, self._material, folder)
        return written(format, Source(folder, description, self._exported), folder, precision)


class FormatConverter:
    """Converts a bundle; `path` is its folder, or the `model.onnx` in it.

    Raises:
        InputError: if it is no bundle, or one of its models is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        folder = path.parent if path.name == MODEL else path
        try:
            description = read_description(folder)
            for file in description["models"]:
                read_checked(folder, file, description)
        except BundleError as error:
            raise InputError(str(error)) from error
        self._source = Source(folder, description)

    def convert(
        self, target_format: str, precision: str | None = None, folder: str | Path | None = None
    ) -> Path:
        """Write the model in another format, beside the bundle if no folder is given.

        Raises:
            InputError: if it is not available here at this precision, with the reason.
        """
        beside = self._source.bundle.parent
        return written(target_format, self._source, Path(folder or beside), precision)


def optimize_for_inference(module: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """Make what computes the output of `module` in onnxruntime, for batches of any size.

    It is the output in evaluation mode; the module and its own mode stay as they are.

    Args:
        module: takes one tensor and returns one.
        example: an input, with the batch first.

    Raises:
        InputError: if it does not compute the same to 1e-4 for the example.
    """
    session = open_session(exported_module(module, example))

    def optimized(batch: Tensor) -> Tensor:
        (found,) = session.run(None, {INPUT: batch.numpy()})
        return torch.from_numpy(found)

    with torch.inference_mode(), evaluation_mode(module):
        apart = float((optimized(example) - module(example)).abs().max())
    if not apart <= _TOLERANCE:
        raise InputError(f"the optimized module differs by {apart:.2g}, more than {_TOLERANCE}")
    return optimized
