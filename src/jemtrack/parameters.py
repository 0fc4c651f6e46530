"""Parameters are dataclasses that check their own values, and `params.yaml` shows them."""

import contextlib
import dataclasses
import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, NamedTuple, TypeVar, dataclass_transform

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass
from pydantic_core import InitErrorDetails, PydanticCustomError

from jemtrack.errors import InputError
from jemtrack.files import name_problem, path_problem

T = TypeVar("T")

# Numbers within bounds, as the fields of parameters have them.
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
AtLeastOne = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


def _checked(problem: Callable[[str], str]) -> AfterValidator:
    """Make a validator of what `problem` explains."""

    def check(value: str) -> str:
        if message := problem(value):  # which has the value in it
            raise PydanticCustomError("problem", "{text}", {"text": message})
        return value

    return AfterValidator(check)


# A name of a file or folder, and a path, on every system.
Name = Annotated[str, _checked(name_problem)]
PathText = Annotated[str, Field(min_length=1), _checked(path_problem)]


def _tuple_of(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# A file has lists where a frozen object has tuples: Annotated[tuple[str, ...], FROM_LIST].
FROM_LIST = BeforeValidator(_tuple_of)

_LONGEST = 200  # characters of a value in a message
MOST_PROBLEMS = 50  # that are told at once

# Where a value is in nested mappings and lists: names, and numbers from 0.
Place = tuple[str | int, ...]

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
    "dataclass_exact_type": "must hold names and values",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must not be empty",
    "missing": "is missing",
    "value_error": "{error}",
}


@dataclass_transform(kw_only_default=True, frozen_default=True)
def parameters(cls: type[T]) -> type[T]:
    """Make `cls` a frozen keyword-only dataclass that refuses wrong types, values and names.

    Bounds are in the annotations: `lr: Annotated[float, Field(gt=0)] = 1e-4`.

    Raises:
        pydantic.ValidationError: when an instance is made of values that do not fit.
    """
    return dataclass(config=_CONFIG, frozen=True, kw_only=True)(cls)  # type: ignore[return-value]


class ValueProblem(NamedTuple):
    """What is wrong with the value at a place."""

    place: Place
    message: str

    @property
    def absent(self) -> bool:
        """Whether the value is missing."""
        return self.message.startswith(_EXPECTED["missing"])


def value_problems(cls: type, values: Mapping[str, Any], at: Place = ()) -> list[ValueProblem]:
    """List what the parameters class `cls` refuses of `values`, which are at `at`."""
    try:
        cls(**{str(name): value for name, value in values.items()})
    except pydantic.ValidationError as error:
        return [
            ValueProblem((*at, *details["loc"]), _message(cls, details))
            for details in error.errors(include_url=False)[:MOST_PROBLEMS]
        ]
    return []


def problem_lines(cls: type, values: Mapping[str, Any], where: str) -> list[str]:
    """List what `cls` refuses of `values`, one sentence a problem.

    `where` is the path that leads to the values, such as `params.yaml: MaxEntropyL1.params`.
    """
    found = value_problems(cls, values)
    return [" ".join([".".join([where, *map(str, place)]), message]) for place, message in found]


def refuse(problems: Iterable[ValueProblem], value: Any = None) -> None:
    """Raise what pydantic raises for `problems`, from within a validator of `value`.

    Raises:
        pydantic.ValidationError: unless there is no problem.
    """
    details: list[InitErrorDetails] = [
        {
            "type": PydanticCustomError("problem", "{message}", {"message": message}),
            "loc": place,
            "input": value,
        }
        for place, message in problems
    ]
    if details:
        raise pydantic.ValidationError.from_exception_data("problems", details)


def nested(cls: type) -> BeforeValidator:
    """Let a mapping serve as a field whose type is the parameters class `cls`.

    Pydantic takes no mapping for a dataclass whose fields are strict.
    """
    return BeforeValidator(lambda value: _made(cls, value))


def by_type(kind: str, classes: Mapping[str, type[T]], own: type[T]) -> Callable[[Any], T]:
    """Return what makes an object of one of `classes`, or an `own`, of `{type: ..., ...options}`.

    A `type` with a dot is the path of a class that is not among them: `own` takes it, and as
    `options` all that is not a field of `own`. `kind` names what is chosen: `an optimizer`. It
    serves as a `BeforeValidator`, and so lets an object pass as it is.
    """

    def chosen(value: Any) -> Any:
        if value is None or isinstance(value, (*classes.values(), own)):
            return value
        refuse(type_problems(value, kind, classes), value)
        name = value["type"]
        if name in classes:
            return _made(classes[name], value)
        fields = {n: value[n] for n in parameter_names(own) if n in value and n != "options"}
        options = {n: value[n] for n in value if n not in fields}
        return _made(own, {**fields, "options": options})

    return chosen


def type_problems(
    value: Any, kind: str, known: Iterable[str], at: Place = ()
) -> Iterable[ValueProblem]:
    """Say why `value` is no mapping with a `type` that is known, or the dotted path of a class."""
    if not isinstance(value, Mapping):
        message = f"must hold `type` and its options, got {format_value(value)}"
        return [ValueProblem(at, message)]
    if "type" not in value:
        return [ValueProblem((*at, "type"), _EXPECTED["missing"])]
    name, known = value["type"], [*known]
    if isinstance(name, str) and (name in known or "." in name):
        return []
    hint = suggestion(str(name), known).replace("it has", "there are")
    return [ValueProblem((*at, "type"), f"must be {kind}, got {format_value(name)}; {hint}")]


def unknown_names(
    values: Mapping[str, Any], known: Iterable[str], at: Place
) -> Iterator[ValueProblem]:
    """Name what does not belong into a mapping."""
    known = [*known]
    for name in islice((name for name in values if name not in known), MOST_PROBLEMS):
        yield ValueProblem((*at, name), f"is not known here; {suggestion(name, known)}")


def not_a_mapping(value: Any, holds: str, at: Place) -> Iterator[ValueProblem]:
    """Check that a value is a mapping; `holds` is what it must hold."""
    if not isinstance(value, Mapping):
        yield ValueProblem(at, f"must hold {holds}, got {format_value(value)}")


def section_problems(cls: type, value: Any, at: Place) -> Iterator[ValueProblem]:
    """Check that a value is a mapping of the parameters of `cls`."""
    yield from not_a_mapping(value, "names and values", at)
    yield from value_problems(cls, value if isinstance(value, Mapping) else {}, at)


def _made(cls: type, values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    refuse(value_problems(cls, values), values)
    return cls(**values)


def parameter_names(cls: type) -> tuple[str, ...]:
    """Name the fields of a parameters class, in their order."""
    return tuple(field.name for field in dataclasses.fields(cls))


def build(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Make the `cls` that `values` describe.

    Raises:
        InputError: naming every value that does not fit, by its path under `where`.
    """
    if found := problem_lines(cls, values, where):
        raise InputError("\n".join(found))
    return cls(**values)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Name the one of `known` that `name` is closest to, or all of them if none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'none'}"


def format_value(value: object) -> str:
    """Write a value about as params.yaml has it: null, true, 0.1, 'text'; cut if it is long."""
    if isinstance(value, str):
        text = repr(value[:_LONGEST])
    else:
        text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def problem_message(kind: str, bounds: Mapping[str, Any], value: object) -> str:
    """Say what pydantic's error of type `kind`, with its `bounds`, expects instead of `value`."""
    # A bound of a float is a float: `> 0.0` is shown as `> 0`.
    bounds = {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in bounds.items()
    }
    expected = _EXPECTED[kind].format(**bounds)
    if kind == "missing":
        return expected
    return f"{expected}, got {format_value(value)}{_quotes_hint(value, kind)}"


def _message(cls: type, details: Any) -> str:
    kind, value = details["type"], details["input"]
    if kind == "problem":  # of a value within: it is in our words already
        return str(details["msg"])
    if kind == "unexpected_keyword_argument":
        known = suggestion(details["loc"][-1], parameter_names(cls))
        return f"is not a parameter of {cls.__name__}; {known}"
    if kind not in _EXPECTED:
        return f"{details['msg']}, got {format_value(value)}"
    return problem_message(kind, details.get("ctx", {}), value)


def _quotes_hint(value: object, kind: str) -> str:
    """In YAML, quotes alone tell the text '7' from the number 7."""
    if kind == "string_type" and value is not None:
        return "; put it into quotes"
    if kind in {"float_type", "int_type"} and isinstance(value, str):
        with contextlib.suppress(ValueError):
            float(value)
            return "; leave out the quotes"
    return ""
