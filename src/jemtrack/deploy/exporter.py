"""Exporting and converting from Python, over the functions that `jemtrack deploy` uses."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from jemtrack.data.images import DataSplits, to_unit_range
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


class Configured(Protocol):
    """A network that knows the images that it is for, as `jemtrack.create_model` makes it."""

    @property
    def data(self) -> DataSplits:
        """The images."""
        ...

    def save(self, path: Path) -> None:
        """Write it as a trainer does."""


class ModelExporter:
    """Exports a trained model, fitted and measured on the data that it was trained on.

    The ONNX models of the bundle are checked against PyTorch. Other formats are written as they
    are: `jemtrack deploy` checks those.

    Args:
        model: a trainer's model.safetensors, or a model of `jemtrack.create_model`.
        data: the prepared images, or their file; a created model knows them.
        outliers: uint8 images (N, C, H, W), by kind.
        args: what the bundle promises.

    Raises:
        InputError: if the model and the data cannot be used, or do not fit together.
    """

    def __init__(
        self,
        model: str | Path | Configured,
        data: DataSplits | str | Path | None = None,
        outliers: Mapping[str, Tensor] | None = None,
        args: DeployArgs | None = None,
    ) -> None:
        if data is None:
            if isinstance(model, str | Path):
                raise InputError(f"data must be the images that {model} was trained on, got none")
            data = model.data
        self._model, self._args = model, args or DeployArgs()
        self._data = data if isinstance(data, DataSplits) else DataSplits.load(Path(data))
        self._outliers = outliers or {}
        if isinstance(model, str | Path):
            self._loaded = self._load(Path(model))

    def export(
        self,
        folder: str | Path,
        format: str = "onnx",
        precision: str | None = None,
        optimize: bool | None = None,
    ) -> Path:
        """Write the bundle into `folder`, with the model in this format; return the latter's file.

        A created model is written there, too, as model.safetensors. `optimize` says whether the
        bundle gets the int8 model, instead of `args`.

        Raises:
            InputError: if the format is refused or not available here, with the reason; in the
                latter case nothing is written.
        """
        available(format, precision)
        folder = Path(folder)
        if isinstance(self._model, str | Path):
            material, exported = self._loaded
        else:
            self._model.save(folder / "model.safetensors")
            material, exported = self._load(folder / "model.safetensors")
        if optimize is not None:
            material = replace(material, args=replace(material.args, int8=optimize))
        description = write_bundle(exported, material, folder)
        return written(format, Source(folder, description, exported), folder, precision)

    def _load(self, path: Path) -> tuple[Material, Exported]:
        material = Material(path, self._data, self._outliers, self._args)
        return material, Exported.of(material)


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


def optimize_for_inference(
    module: nn.Module, example: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Make what computes the output of `module` in onnxruntime, for batches of any size.

    It is the output in evaluation mode; the module and its own mode stay as they are.

    Args:
        module: takes one tensor and returns one.
        example: an input, with the batch first; a model of `jemtrack.create_model` has one.

    Raises:
        InputError: if it does not compute the same to 1e-4 for the example, or there is none.
    """
    if example is None:
        if not hasattr(module, "data"):
            raise InputError("example must be an input of the module, got none")
        example = to_unit_range(cast(Configured, module).data.train.images_NCHW[:2])
    session = open_session(exported_module(module, example))

    def optimized(batch: Tensor) -> Tensor:
        (found,) = session.run(None, {INPUT: batch.numpy()})
        return torch.from_numpy(found)

    with torch.inference_mode(), evaluation_mode(module):
        apart = float((optimized(example) - module(example)).abs().max())
    if not apart <= _TOLERANCE:
        raise InputError(f"the optimized module differs by {apart:.2g}, more than {_TOLERANCE}")
    return optimized
