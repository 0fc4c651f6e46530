"""Parameters in the forms that files and databases take."""

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

Scalar = None | bool | int | float | str


def plain(value: Any) -> Any:
    """Give `value` as JSON has it: dicts, lists and scalars.

    A dataclass becomes a dict with its class under `_cls`, as in params.yaml. A number that is
    not finite, which JSON does not have, becomes text, and so does what is of another type.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"_cls": f"{type(value).__module__}.{type(value).__qualname__}", **plain(fields)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def flat(parameters: Mapping[str, Any]) -> dict[str, Scalar]:
    """Give each parameter under its dotted path; a list becomes the text of its JSON."""
    found: dict[str, Scalar] = {}

    def visit(path: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, entry in value.items():
                visit(f"{path}.{key}" if path else key, entry)
        else:
            found[path] = json.dumps(value) if isinstance(value, dict | list) else value

    if parameters:
        visit("", plain(parameters))
    return found


def as_text(value: Scalar) -> str:
    """Write a parameter as params.yaml has it, but for quotes: null, true, 0.1, text."""
    return value if isinstance(value, str) else json.dumps(value)
