"""Save and load a joint energy-based model as one file; see `jemtrack.shared.model_file`."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jemtrack.errors import InputError
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.parameters import format_value
from jemtrack.shared.hardware import check_memory
from jemtrack.shared.model_file import describe_model, read_weights, write_model

# Fields of the shape on which no weight depends: they may differ between a file and a model.
_WITHOUT_WEIGHTS = {"dropout_rate"}


class ModelFile(NamedTuple):
    """A loaded file: the model (on the CPU, in evaluation mode), its shape, and its metadata."""

    model: JointEnergyModel
    shape: WideResNetShape
    metadata: dict[str, str]


def save_model(
    path: Path, model: JointEnergyModel, shape: WideResNetShape, metadata: Mapping[str, str]
) -> None:
    """Write the model atomically; equal content gives equal bytes.

    Missing folders are created. `metadata` is free text for readers, such as the data set's name.
    """
    write_model(path, model.state_dict(), shape, metadata)


def load_model(path: Path) -> ModelFile:
    """Load a model that `save_model` wrote; no code in the file is executed.

    The global random state is not changed.

    Raises:
        InputError: if the file is missing, damaged or not a jemtrack model.
    """
    model, shape, metadata = _described(path)
    model.load_state_dict(read_weights(path), assign=True)
    return ModelFile(model.eval(), shape, metadata)


def trained_noise(path: Path, metadata: Mapping[str, str]) -> float:
    """Return the standard deviation of the noise that the model at `path` was trained with.

    Raises:
        InputError: if its metadata do not say it.
    """
    try:
        sigma = float(metadata["sigma"])
    except (KeyError, ValueError):
        sigma = math.nan
    if not 0 <= sigma < math.inf:
        found = format_value(metadata.get("sigma"))
        raise InputError(f"{path}: its metadata must have `sigma`, a number >= 0, got {found}")
    return sigma


def load_weights_into(model: JointEnergyModel, shape: WideResNetShape, path: Path) -> None:
    """Load the weights in the file into `model`, which was built from `shape`.

    The shapes of both must be equal except for the dropout rate, which no weight depends on.

    Raises:
        InputError: if the shapes differ, naming each field; or if the file is missing, damaged or
            not a jemtrack model. `model` is then unchanged.
    """
    _, file_shape, _ = _described(path)
    expected, found = dataclasses.asdict(shape), dataclasses.asdict(file_shape)
    differences = [
        f"{name} is {found[name]!r} in the file, {expected[name]!r} here"
        for name in expected
        if found[name] != expected[name] and name not in _WITHOUT_WEIGHTS
    ]
    if differences:
        raise InputError(
            f"{path} holds a model of another shape: {'; '.join(differences)}; "
            "make them equal or choose another file"
        )
    model.load_state_dict(read_weights(path))


def _described(path: Path) -> ModelFile:
    return ModelFile(*describe_model(path, WideResNetShape, _made))


def _made(shape: WideResNetShape) -> JointEnergyModel:
    check_memory("width", shape.width, 4 * shape.n_weights)
    return build_model(shape)
