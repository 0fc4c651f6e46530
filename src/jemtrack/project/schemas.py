"""Describe parameter classes as JSON Schema, in zntrack.json, and check values against it.

Before a stage runs, it checks the parameters of all stages. With the schemas, it does so without
importing the code of the other stages. What JSON Schema cannot express is checked when the class
itself is imported.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jemtrack.parameters import format_value, problem_message, suggestion

SCHEMAS = "_schemas"  # the key in zntrack.json, beside the stages

Schema = Mapping[str, Any]

_LEFT_OUT = {"title", "description", "default"}
# A rule of JSON Schema, as the type of pydantic's error and the name of its bound.
_TYPES = {
    "integer": "int_type",
    "number": "float_type",
    "boolean": "bool_type",
    "string": "string_type",
    "array": "list_type",
    "object": "dict_type",
}
_RULES = {
    "minimum": ("greater_than_equal", "ge"),
    "exclusiveMinimum": ("greater_than", "gt"),
    "maximum": ("less_than_equal", "le"),
    "exclusiveMaximum": ("less_than", "lt"),
    "maxItems": ("too_long", "max_length"),
    "minItems": ("too_short", "min_length"),
    "minLength": ("string_too_short", "min_length"),
    "enum": ("enum", "expected"),
    "const": ("enum", "expected"),
}


def parameter_schema(cls: type) -> dict[str, Any] | None:
    """Return the JSON schema of a parameters class; None if a field has no form in JSON."""
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.dataclasses import is_pydantic_dataclass

    if not is_pydantic_dataclass(cls):
        return None
    try:
        schema: dict[str, Any] = _without_words(TypeAdapter(cls).json_schema())
    except PydanticUserError:
        return None
    return schema


def schema_problems(schema: Schema, cls: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a problem for each of `values` that does not fit: its path, a space, the problem."""
    fields, inner = schema["properties"], {"$defs": schema.get("$defs", {})}
    for name, field in fields.items():
        if name in values:
            if problem := _problem({**inner, **field}, values[name]):
                yield f"{name}{problem}"
        elif name in schema.get("required", ()):
            yield f"{name} is missing"
    for name in values:
        if name not in fields:
            yield f"{name} is not a parameter of {cls}; {suggestion(str(name), fields)}"


def _problem(schema: Schema, value: Any) -> str:
    """Describe the problem of a value, after the path within it; return "" if it fits."""
    from fastjsonschema import JsonSchemaValueException

    options = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(options) == 1 and value is not None:  # optional: the message need not mention null
        schema = {"$defs": schema["$defs"], **options[0]}
    try:
        _validator(json.dumps(schema))(value)
    except JsonSchemaValueException as error:
        path = "".join(f".{part}" for part in error.path[1:])
        return f"{path} {_message(str(error.rule), error.rule_definition, error.value)}"
    return ""


def _message(rule: str, bound: Any, value: object) -> str:
    if rule == "type" and bound in _TYPES:
        return problem_message(_TYPES[bound], {}, value)
    if rule not in _RULES:
        return f"must fit {rule} {bound}, got {format_value(value)}"
    kind, name = _RULES[rule]
    if kind == "enum":
        *others, last = map(repr, bound if rule == "enum" else [bound])
        bound = f"{', '.join(others)} or {last}" if others else last
    return problem_message(kind, {name: bound}, value)


# Compiling a schema takes far longer than validating with it.
@functools.lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    import fastjsonschema

    return fastjsonschema.compile(json.loads(schema))


def _without_words(schema: Any) -> Any:
    """Drop titles, descriptions and defaults from a schema, but not fields of these names."""
    if isinstance(schema, list):
        return [_without_words(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_words(each) for name, each in value.items()}
        if key in {"properties", "$defs"}
        else _without_words(value)
        for key, value in schema.items()
        if key not in _LEFT_OUT
    }
