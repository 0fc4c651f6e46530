"""`params.yaml`, checked against the classes that read it."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jemtrack.errors import InputError
from jemtrack.parameters import problems

PARAMS = Path("params.yaml")
ZNTRACK = Path("zntrack.json")


class Section(NamedTuple):
    """The values of one parameter object: where they stand and the class that reads them."""

    stage: str
    field: str
    cls: type
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """Name the place in the file."""
        return f"{PARAMS}: {self.stage}.{self.field}"


def check_parameter_file() -> None:
    """Check the parameters of every stage, so that a fault of a late one stops the first.

    Raises:
        InputError: one line for each value that is of a wrong type, out of range or unknown.
    """
    written, values = read_graph(), read_parameters()
    found = [line for stage in written for line in _unknown_fields(stage, written, values)]
    for section in sections(written, values):
        found += _problems(section)
    if found:
        raise InputError("\n".join(found))


def read_parameters() -> dict[str, Any]:
    """Read params.yaml.

    Raises:
        InputError: when it is missing or no YAML mapping.
    """
    try:
        values = yaml.safe_load(PARAMS.read_text())
    except FileNotFoundError:
        raise InputError(f"{PARAMS} is missing: `jemtrack graph` writes it") from None
    except yaml.YAMLError as error:
        raise InputError(f"{PARAMS} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{PARAMS} must hold a mapping of stages, got {values!r}")
    return values


def read_graph() -> dict[str, Any]:
    """Read what ZnTrack knows of each stage."""
    graph: dict[str, Any] = json.loads(ZNTRACK.read_text()) if ZNTRACK.exists() else {}
    return graph


def sections(written: dict[str, Any], values: dict[str, Any]) -> Iterator[Section]:
    """Find each parameter object of each stage and the class that reads it."""
    for stage, fields in written.items():
        for field, entry in fields.items():
            if not isinstance(entry, dict) or entry.get("_type") != "@dataclasses.dataclass":
                continue
            cls = _load(entry["value"]["module"], entry["value"]["cls"])
            given = values.get(stage)
            given = given.get(field) if isinstance(given, dict) else None
            if cls is not None:
                yield Section(stage, field, cls, given if isinstance(given, dict) else {})


def _load(module: str, name: str) -> type | None:
    """Find the class; one that cannot be imported is that stage's own trouble, not ours."""
    try:
        cls: type = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None
    return cls


def _problems(section: Section) -> list[str]:
    values = dict(section.values)
    expected = f"{section.cls.__module__}.{section.cls.__qualname__}"
    named = values.pop("_cls", expected)
    if named != expected:
        return [
            f"{section.where}._cls must be {expected}, got {named!r}; another class is given "
            "in Python, followed by `jemtrack graph` or the node's write_graph()"
        ]
    return problems(section.cls, values, section.where)


def _unknown_fields(stage: str, written: dict[str, Any], values: dict[str, Any]) -> list[str]:
    given, known = values.get(stage), written[stage]
    if given is None:
        return []
    if not isinstance(given, dict):
        return [f"{PARAMS}: {stage} must hold the stage's parameters, got {given!r}"]
    fields = ", ".join(name for name in known if isinstance(known[name], dict))
    return [
        f"{PARAMS}: {stage}.{field} is not a field of the stage; it has {fields}"
        for field in given
        if field not in known
    ]
