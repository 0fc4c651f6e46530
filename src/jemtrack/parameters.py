"""Parameters are dataclasses that check their own values, and `params.yaml` shows them."""

import contextlib
import dataclasses
import difflib
import json
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar, dataclass_transform

import pydantic
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from jemtrack.errors import InputError

T = TypeVar("T")

# Numbers within bounds, as the fields of parameters have them.
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
AtLeastOne = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


def _tuple_of(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# A file has lists where a frozen object has tuples: Annotated[tuple[str, ...], FROM_LIST].
FROM_LIST = BeforeValidator(_tuple_of)

# A stage makes objects of few of the classes that its imports bring: a validator is built late.
_CONFIG = pydantic.ConfigDict(strict=True, extra="forbid", defer_build=True)

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
    "string_too_short": "must not be empty",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must hold names and values",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must not be empty",
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
    found = faults(cls, values)
    return [" ".join([".".join([where, *map(str, path)]), message]) for path, message in found]


def faults(cls: type, values: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """Say for each of `values` that `cls` refuses where it stands in them and what is wrong."""
    try:
        cls(**{str(name): value for name, value in values.items()})
    except pydantic.ValidationError as error:
        return [(details["loc"], _message(cls, details)) for details in error.errors()]
    return []


def parameter_names(cls: type) -> tuple[str, ...]:
    """Name the fields of a parameters class, in their order."""
    return tuple(field.name for field in dataclasses.fields(cls))


def build(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Make the `cls` that `values` describe.

    Raises:
        InputError: naming every value that does not fit, by its path under `where`.
    """
    if found := problems(cls, values, where):
        raise InputError("\n".join(found))
    return cls(**values)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Say which one of `known` the unknown `name` may stand for, or else what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'none'}"


def shown(value: object) -> str:
    """Write a value about as params.yaml has it: null, true, 0.1, 'text'."""
    return repr(value) if isinstance(value, str) else json.dumps(value, default=str, skipkeys=True)


def _message(cls: type, details: Any) -> str:
    kind, value = details["type"], details["input"]
    if kind == "unexpected_keyword_argument":
        known = suggestion(details["loc"][-1], parameter_names(cls))
        return f"is not a parameter of {cls.__name__}; {known}"
    template = _EXPECTED.get(kind)
    # A bound of a float is a float: `> 0.0` is shown as `> 0`.
    context = {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in details.get("ctx", {}).items()
    }
    expected = template.format(**context) if template else str(details["msg"])
    if kind == "missing":
        return expected
    return f"{expected}, got {shown(value)}{_quotes_hint(value, kind)}"


def _quotes_hint(value: object, kind: str) -> str:
    """In YAML, quotes alone tell the text '7' from the number 7."""
    if kind == "string_type" and value is not None:
        return "; put it into quotes"
    if kind in {"float_type", "int_type"} and isinstance(value, str):
        with contextlib.suppress(ValueError):
            float(value)
            return "; leave out the quotes"
    return ""
