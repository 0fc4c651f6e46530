"""Save and load a model as one safetensors file: its weights, and its shape as JSON metadata."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from jemtrack.errors import InputError
from jemtrack.files import atomic_write
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.parameters import build

# All metadata are under one key: safetensors writes several keys in a random order, and equal
# models must give equal bytes.
_HEADER_KEY = "jemtrack"

# Fields of the shape on which no weight depends: they may differ between a file and a model.
_WITHOUT_WEIGHTS = {"dropout_rate"}


class ModelFile(NamedTuple):
    """A loaded file: the model (on the CPU, in evaluation mode), its shape, and its metadata."""

    model: JointEnergyModel
    shape: WideResNetShape
    metadata: dict[str, str]


class _Content(NamedTuple):
    weights: dict[str, Tensor]
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
    weights, shape, metadata = _read(path)
    # On the meta device, no initial weights are drawn that would be overwritten at once.
    with torch.device("meta"):
        model = build_model(shape)
    _load_weights(model, weights, path, assign=True)
    return ModelFile(model.eval(), shape, metadata)


def load_weights_into(model: JointEnergyModel, shape: WideResNetShape, path: Path) -> None:
    """Load the weights in the file into `model`, which was built from `shape`.

    The shapes of both must be equal except for the dropout rate, which no weight depends on.

    Raises:
        InputError: if the shapes differ, naming each field; or if the file is missing, damaged or
            not a jemtrack model. `model` is then unchanged.
    """
    weights, file_shape, _ = _read(path)
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
    _load_weights(model, weights, path, assign=False)


def _read(path: Path) -> _Content:
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a model.safetensors that a trainer wrote")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER_KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(
            f"{path} is damaged, cut short or not a safetensors file ({error}); write it again"
        ) from error
    shape, metadata = _parse(header, path)
    return _Content(weights, shape, metadata)


def _parse(header: str | None, path: Path) -> tuple[WideResNetShape, dict[str, str]]:
    foreign = InputError(
        f"{path} is a safetensors file, but not a jemtrack model: its metadata have no readable "
        f"{_HEADER_KEY!r}; expected a model.safetensors that a trainer wrote"
    )
    if header is None:
        raise foreign
    try:
        content: dict[str, Any] = json.loads(header)
        values, metadata = dict(content["shape"]), dict(content["metadata"])
    except (ValueError, KeyError, TypeError) as error:
        raise foreign from error
    return build(WideResNetShape, values, f"{path}: shape"), metadata


def _load_weights(
    model: JointEnergyModel, weights: dict[str, Tensor], path: Path, *, assign: bool
) -> None:
    expected = {name: weight.shape for name, weight in model.state_dict().items()}
    found = {name: weight.shape for name, weight in weights.items()}
    if wrong := sorted(name for name, _ in expected.items() ^ found.items()):
        raise InputError(
            f"{path}: its weights do not fit its own shape ({', '.join(dict.fromkeys(wrong))}); "
            "the file was changed or written by another version: write it again"
        )
    model.load_state_dict(weights, assign=assign)
