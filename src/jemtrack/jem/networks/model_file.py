"""A trained model as one safetensors file: its weights and, as JSON, the shape to build it with."""

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
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.parameters import build

# All that is not a tensor stands under one key: safetensors writes several in a random order.
_HEADER_KEY = "jemtrack"

# What may differ between a file and the model that takes its weights over.
_WITHOUT_WEIGHTS = {"dropout_rate"}


class ModelFile(NamedTuple):
    """What a file holds: the model (on the CPU, in eval mode), its shape, the writer's notes."""

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
    """Write the model, whole or not at all; the same content gives the same bytes.

    Folders that lack are made. `metadata` is for the reader's notes, such as the data set's name.
    """
    header = {"metadata": dict(metadata), "shape": dataclasses.asdict(shape)}
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    content = save(weights, {_HEADER_KEY: json.dumps(header, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    # Not safetensors' own writer: its files are closed to all but their owner, also in a cache.
    unfinished.write_bytes(content)
    unfinished.replace(path)


def load_model(path: Path) -> ModelFile:
    """Read a model that `save_model` wrote; nothing in the file is executed.

    The global random state is left alone.

    Raises:
        InputError: when the file is missing, damaged or no model of this project.
    """
    weights, shape, metadata = _read(path)
    with torch.device("meta"):
        model = shape.build_model()
    _take_over(model, weights, path, assign=True)
    return ModelFile(model.eval(), shape, metadata)


def load_weights_into(model: JointEnergyModel, shape: WideResNetShape, path: Path) -> None:
    """Start `model`, which was built from `shape`, from the weights in the file.

    The two shapes must be equal but for the dropout rate, which no weight depends on.

    Raises:
        InputError: when they differ, naming each field; or when the file is missing, damaged or
            no model of this project. `model` is then unchanged.
    """
    weights, shape_there, _ = _read(path)
    here, there = dataclasses.asdict(shape), dataclasses.asdict(shape_there)
    differences = [
        f"{name} is {there[name]!r} there, {here[name]!r} here"
        for name in here
        if there[name] != here[name] and name not in _WITHOUT_WEIGHTS
    ]
    if differences:
        raise InputError(
            f"{path} holds a model of another shape: {'; '.join(differences)}; "
            "make them equal or choose another file"
        )
    _take_over(model, weights, path, assign=False)


def _read(path: Path) -> _Content:
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a model.safetensors that a trainer wrote")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER_KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(
            f"{path} is damaged, cut short or no safetensors file ({error}); write it anew"
        ) from error
    shape, metadata = _parse(header, path)
    return _Content(weights, shape, metadata)


def _parse(header: str | None, path: Path) -> tuple[WideResNetShape, dict[str, str]]:
    foreign = InputError(
        f"{path} is a safetensors file, but not a jemtrack model: its metadata lack a readable "
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


def _take_over(
    model: JointEnergyModel, weights: dict[str, Tensor], path: Path, *, assign: bool
) -> None:
    expected = {name: weight.shape for name, weight in model.state_dict().items()}
    found = {name: weight.shape for name, weight in weights.items()}
    if wrong := sorted(name for name, _ in expected.items() ^ found.items()):
        raise InputError(
            f"{path}: its weights do not fit its own shape ({', '.join(dict.fromkeys(wrong))}); "
            "the file was changed or written by another version: write it anew"
        )
    model.load_state_dict(weights, assign=assign)
