"""Serialise a nested state to safetensors bytes: tensors as such, all else as JSON metadata.

Unlike a pickle, such a file cannot execute code when it is read.
"""

import json
import math
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jemtrack.documents import parse_json

_KEY = "jemtrack"
# A JSON object with one of these keys represents what JSON cannot: a tensor, a dict whose keys are
# not plain text, a tuple, a float that is not finite.
_TENSOR, _ITEMS, _TUPLE, _NUMBER = "$tensor", "$items", "$tuple", "$number"


def to_bytes(tree: Any) -> bytes:
    """Serialise nested dicts, lists and tuples of tensors, numbers, text, booleans and None.

    Raises:
        TypeError: for a value of another type, naming its path.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(tree, "state", tensors), allow_nan=False)
    return save(tensors, {_KEY: text})


def from_bytes(content: bytes) -> Any:
    """Deserialise what `to_bytes` returned; the tensors are on the CPU.

    Raises:
        ValueError: if the bytes are anything else.
    """
    try:
        size = int.from_bytes(content[:8], "little")
        header = parse_json(content[8 : 8 + size], "its header")
        return _decode(parse_json(header["__metadata__"][_KEY], "its metadata"), load(content))
    except (KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"not the state of a training: {error}") from error


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # Tied weights share a storage, which safetensors refuses: copy each.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        entries = [[key, _encode(entry, f"{path}.{key}", tensors)] for key, entry in value.items()]
        if all(type(key) is str and not key.startswith("$") for key in value):
            return dict(entries)
        return {_ITEMS: [[_encode(key, path, tensors), entry] for key, entry in entries]}
    if isinstance(value, list | tuple):
        entries = [_encode(entry, f"{path}[{i}]", tensors) for i, entry in enumerate(value)]
        return {_TUPLE: entries} if isinstance(value, tuple) else entries
    if isinstance(value, float) and not math.isfinite(value):
        return {_NUMBER: str(float(value))}
    if value is None or type(value) in {bool, int, float, str}:
        return value
    raise TypeError(f"{path} cannot be saved: expected tensors and JSON, got {type(value)}")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _NUMBER in value:
        return float(value[_NUMBER])
    if _TUPLE in value:
        return tuple(_decode(entry, tensors) for entry in value[_TUPLE])
    if _ITEMS in value:
        return {_decode(key, tensors): _decode(entry, tensors) for key, entry in value[_ITEMS]}
    return {key: _decode(entry, tensors) for key, entry in value.items()}
