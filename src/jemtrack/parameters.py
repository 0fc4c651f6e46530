"""Parameters are dataclasses that check their own values, and `params.yaml` shows them."""

import difflib
from typing import Any, TypeVar, dataclass_transform

import pydantic
from pydantic.dataclasses import dataclass

from jemtrack.errors import InputError

T = TypeVar("T")

_CONFIG = pydantic.ConfigDict(strict=True, extra="forbid")

_EXPECTED = {
    "greater_than": "must be > {gt}",
    "greater_than_equal": "must be >= {ge}",
    "less_than": "must be < {lt}",
    "less_than_equal": "must be <= {le}",
    "finite_number": "must be a finite number",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "missing": "is missing",
    "value_error": "{error}",
}


@dataclass_transform(kw_only_default=True, frozen_default=True)
def parameters(cls: type[T]) -> type[T]:
    """Make `cls` a frozen keyword-only dataclass that refuses wrong types, values and names.

    Bounds stand in the annotations: `lr: Annotated[float, Field(gt=0)] = 1e-4`.

    Raises:
        pydantic.ValidationError: when an instance is made of values that do not fit.
    """
    return dataclass(config=_CONFIG, frozen=True, kw_only=True)(cls)  # type: ignore[return-value]


def problems(cls: type, values: dict[str, Any], where: str) -> list[str]:
    """Say for each of `values` that `cls` refuses what is wrong, one sentence a problem.

    `where` is the path that leads to the values, such as `params.yaml: MaxEntropyL1.params`.
    """
    try:
        cls(**values)
    except pydantic.ValidationError as error:
        return [_sentence(cls, where, details) for details in error.errors()]
    return []


def build(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Make the `cls` that `values` describe.

    Raises:
        InputError: naming every value that does not fit, by its path under `where`.
    """
    if found := problems(cls, values, where):
        raise InputError("\n".join(found))
    return cls(**values)


def _sentence(cls: type, where: str, details: Any) -> str:
    path = ".".join([where, *(str(part) for part in details["loc"])])
    value = details["input"]
    if details["type"] == "unexpected_keyword_argument":
        return f"{path} is not a parameter of {cls.__name__}{_suggestion(cls, details['loc'][-1])}"
    template = _EXPECTED.get(details["type"])
    expected = template.format(**details.get("ctx", {})) if template else details["msg"]
    if details["type"] == "missing":
        return f"{path} {expected}"
    return f"{path} {expected}, got {value!r}{_number_hint(value, details['type'])}"


def _suggestion(cls: type, name: str) -> str:
    known = sorted(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(known)}"


def _number_hint(value: object, kind: str) -> str:
    """YAML 1.1 reads `1e-3` as text: only `1.0e-3` is a number."""
    if kind not in {"float_type", "int_type"} or not isinstance(value, str):
        return ""
    try:
        return f" (text in YAML; write {float(value)!r})"
    except ValueError:
        return ""
