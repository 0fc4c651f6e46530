"""Save and load a model as one safetensors file: its weights, and its shape as JSON metadata.

A file may come from anywhere: its header is held against the model that its shape describes before
a weight is read, and its weights must be finite.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from jemtrack.documents import parse_json, refused_if_broken
from jemtrack.errors import InputError, ParameterError
from jemtrack.files import atomic_write
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.parameters import build, format_value
from jemtrack.shared.hardware import check_memory

# All metadata are under one key: safetensors writes several keys in a random order, and equal
# models must give equal bytes.
_HEADER_KEY = "jemtrack"
_LONGEST_HEADER = 2**24
_DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}

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
    header = {"metadata": dict(metadata), "shape": dataclasses.asdict(shape)}
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    content = save(weights, {_HEADER_KEY: json.dumps(header, sort_keys=True)})
    # Not safetensors' `save_file`: only the owner may read its files, even in a shared DVC cache.
    atomic_write(path, lambda unfinished: unfinished.write_bytes(content))


def load_model(path: Path) -> ModelFile:
    """Load a model that `save_model` wrote; no code in the file is executed.

    The global random state is not changed.

    Raises:
        InputError: if the file is missing, damaged or not a jemtrack model.
    """
    model, shape, metadata = _described(path)
    model.load_state_dict(_weights(path), assign=True)
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
    model.load_state_dict(_weights(path))


def _described(path: Path) -> ModelFile:
    """Make the model that the file's header describes, without memory for its weights.

    Raises:
        InputError: if the header is none of a model, or does not fit its own shape.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a model.safetensors that a trainer wrote")
    header = _header(path)
    shape, metadata = _parse(header.pop("__metadata__", None), path)
    try:
        check_memory("width", shape.width, 4 * shape.n_weights)
    except ParameterError as error:
        raise InputError(f"{path}: shape.{error}") from error
    # On the meta device, no initial weights are drawn that would be overwritten at once.
    with torch.device("meta"):
        model = build_model(shape)
    _check_entries(header, model, path)
    return ModelFile(model, shape, metadata)


def _check_entries(header: dict[str, Any], model: JointEnergyModel, path: Path) -> None:
    """Raise an `InputError` unless names, types and shapes in the header are the model's."""
    expected = {
        name: (_DTYPES[weight.dtype], [*weight.shape])
        for name, weight in model.state_dict().items()
    }
    found = {
        name: (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else entry
        for name, entry in header.items()
    }
    names = {*expected} | {*found}
    if wrong := sorted(name for name in names if expected.get(name) != found.get(name)):
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(
            f"{path}: its weights do not fit its own shape ({', '.join(wrong[:5])}{more}); "
            "the file was changed or written by another version: write it again"
        )


def _header(path: Path) -> dict[str, Any]:
    with _whole(path), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(path.stat().st_size, _LONGEST_HEADER):
            raise ValueError(f"its header has a length of {length} bytes")
        return dict(parse_json(file.read(length), f"{path}: its header"))


def _weights(path: Path) -> dict[str, Tensor]:
    with _whole(path), safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if wrong := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise InputError(f"{path}: its weights must be finite, and {wrong[0]} is not")
    return weights


def _whole(path: Path) -> AbstractContextManager[None]:
    return refused_if_broken(
        path, "is damaged, cut short or not a safetensors file", "write it again"
    )


def _parse(metadata: Any, path: Path) -> tuple[WideResNetShape, dict[str, str]]:
    foreign = InputError(
        f"{path} is a safetensors file, but not a jemtrack model: its metadata have no readable "
        f"{_HEADER_KEY!r}; expected a model.safetensors that a trainer wrote"
    )
    try:
        content = parse_json(metadata[_HEADER_KEY], path)
        values, notes = dict(content["shape"]), dict(content["metadata"])
    except (ValueError, KeyError, TypeError) as error:
        raise foreign from error
    if not all(isinstance(note, str) for note in notes.values()):
        raise foreign
    return build(WideResNetShape, values, f"{path}: shape"), notes
