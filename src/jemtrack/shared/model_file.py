"""A file of a model: safetensors with its weights, and its shape as JSON metadata.

A file may come from anywhere: its header is held against the model that its shape describes before
a weight is read, and its weights must be finite. Each family says what its shape is, and how a
model is made of it.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from jemtrack.documents import parse_json, refused_if_broken
from jemtrack.errors import InputError, ParameterError
from jemtrack.files import atomic_write
from jemtrack.parameters import build

# All metadata are under one key: safetensors writes several keys in a random order, and equal
# models must give equal bytes.
_HEADER_KEY = "jemtrack"
_LONGEST_HEADER = 2**24
_DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}

M = TypeVar("M", bound=nn.Module)
S = TypeVar("S")


def write_model(
    path: Path, weights: Mapping[str, Tensor], shape: Any, metadata: Mapping[str, str]
) -> None:
    """Write a model atomically; equal content gives equal bytes.

    Missing folders are created. `shape` is a parameters class; `metadata` is free text for
    readers, such as the data set's name.
    """
    header = {"metadata": dict(metadata), "shape": dataclasses.asdict(shape)}
    whole = {name: weight.contiguous() for name, weight in weights.items()}
    content = save(whole, {_HEADER_KEY: json.dumps(header, sort_keys=True)})
    # Not safetensors' `save_file`: only the owner may read its files, even in a shared DVC cache.
    atomic_write(path, lambda unfinished: unfinished.write_bytes(content))


def describe_model(
    path: Path, shape_class: type[S], make: Callable[[S], M]
) -> tuple[M, S, dict[str, str]]:
    """Make the model that the file's header describes, without memory for its weights.

    `make` is called with a shape of `shape_class`, and may refuse it by a `ParameterError`.
    Returned are the model, its shape and the metadata.

    Raises:
        InputError: if the header is none of a model, or does not fit its own shape.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a model.safetensors that a trainer wrote")
    header = _header(path)
    values, metadata = _parse(header.pop("__metadata__", None), path)
    shape = build(shape_class, values, f"{path}: shape")
    try:
        # On the meta device, no initial weights are drawn that would be overwritten at once.
        with torch.device("meta"):
            model = make(shape)
    except ParameterError as error:
        raise InputError(f"{path}: shape.{error}") from error
    _check_entries(header, model, path)
    return model, shape, metadata


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a file.

    Raises:
        InputError: if it is damaged, or a weight is not finite.
    """
    with _whole(path), safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if wrong := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise InputError(f"{path}: its weights must be finite, and {wrong[0]} is not")
    return weights


def _check_entries(header: dict[str, Any], model: nn.Module, path: Path) -> None:
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


def _whole(path: Path) -> AbstractContextManager[None]:
    return refused_if_broken(
        path, "is damaged, cut short or not a safetensors file", "write it again"
    )


def _parse(metadata: Any, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
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
    return values, notes
