"""Describe parameter classes as JSON Schema, in zntrack.json, and check values against it.

Before a stage runs, it checks the parameters of all stages. With the schemas, it does so without
importing the code of the other stages. What JSON Schema cannot express is checked when the class
itself is imported.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jemtrack.parameters import format_value, suggestion

SCHEMAS = "_schemas"  # the key in zntrack.json, beside the stages

Schema = Mapping[str, Any]

_LEFT_OUT = {"title", "description", "default"}
_TYPES = {
    "integer": "must be a whole number",
    "number": "must be a number",
    "boolean": "must be true or false",
    "string": "must be text",
    "array": "must be a list",
    "object": "must hold names and values",
}
_RULES = {
    "minimum": "must be >= {}",
    "exclusiveMinimum": "must be > {}",
    "maximum": "must be <= {}",
    "exclusiveMaximum": "must be < {}",
    "maxItems": "must have at most {} entries",
    "minItems": "must not be empty",
    "minLength": "must not be empty",
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
    for name, value in values.items():
        if name not in fields:
            yield f"{name} is not a parameter of {cls}; {suggestion(str(name), fields)}"
        elif problem := _problem({**inner, **fields[name]}, value):
            yield f"{name}{problem}"
    yield from (f"{name} is missing" for name in schema.get("required", ()) if name not in values)


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
        expected = _expected(str(error.rule), error.rule_definition)
        return f"{path} {expected}, got {format_value(error.value)}"
    return ""


def _expected(rule: str, bound: Any) -> str:
    if rule == "type":
        kinds = bound if isinstance(bound, list) else [bound]
        return " or ".join(_TYPES.get(kind, f"must be {kind}") for kind in kinds)
    if rule in {"enum", "const"}:
        return f"must be one of {', '.join(map(repr, bound if rule == 'enum' else [bound]))}"
    return _RULES.get(rule, f"must fit {rule} {{}}").format(bound)


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
