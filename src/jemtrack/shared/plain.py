"""Parameters in the forms that files and databases accept."""

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

Scalar = None | bool | int | float | str


def plain(value: Any) -> Any:
    """Convert `value` to what JSON has: dicts, lists and scalars.

    A dataclass becomes a dict with its class under `_cls`, as in params.yaml. A number that is
    not finite, which JSON lacks, becomes text, and so does a value of any other type.
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
    """Map the dotted path of each parameter to its value; a list becomes its JSON text."""
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
    """Format a parameter as in params.yaml, without quotes: null, true, 0.1, text."""
    return value if isinstance(value, str) else json.dumps(value)
