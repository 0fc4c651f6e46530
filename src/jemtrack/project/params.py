"""`params.yaml`, checked against the classes that read it."""

import functools
import importlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jemtrack.errors import InputError
from jemtrack.parameters import format_value, problem_lines, suggestion

DVC = Path("dvc.yaml")
PARAMS = Path("params.yaml")
ZNTRACK = Path("zntrack.json")

# Under this name a stage's entry in zntrack.json remembers what the graph wrote of it, so that
# the next writing can tell a change by hand from a change of the graph.
WRITTEN = "_written"

# DVC takes 1e-05 for a number and `on` for text, as YAML 1.2 says, and writes them so. ZnTrack
# reads the file with PyYAML, which follows YAML 1.1, where they are text and a boolean.
_TAG = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_BOOLEAN = re.compile(r"(true|True|TRUE|false|False|FALSE)$")
# The same ten times as fast, where PyYAML was built with it: each stage reads the files.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
for _side in dict.fromkeys((yaml.SafeLoader, yaml.SafeDumper, _Loader)):
    _side.add_implicit_resolver(f"{_TAG}float", _NUMBER, list("-+0123456789"))
    for _entries in _side.yaml_implicit_resolvers.values():
        _entries[:] = [(tag, _BOOLEAN if tag == f"{_TAG}bool" else form) for tag, form in _entries]


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

    @property
    def problems(self) -> list[str]:
        """Say what is wrong with the values, a line a problem."""
        values = dict(self.values)
        expected = f"{self.cls.__module__}.{self.cls.__qualname__}"
        named = values.pop("_cls", expected)
        if named != expected:
            return [
                f"{self.where}._cls must be {expected}, got {format_value(named)}; another class "
                "is given in Python, followed by `jemtrack graph` or the node's write_graph()"
            ]
        return problem_lines(self.cls, values, self.where)

    def build(self) -> Any:
        """Make the object; its values must have no problems."""
        return self.cls(**{name: self.values[name] for name in self.values if name != "_cls"})


def check_parameter_file() -> None:
    """Check the parameters of every stage, so that a fault of a late one stops the first.

    Raises:
        InputError: one line for each value that is of a wrong type, out of range or unknown.
    """
    if found := parameter_problems(read_graph(), read_parameters()):
        raise InputError("\n".join(found))


def parameter_problems(graph: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Say what is wrong in the values of params.yaml, a line a problem."""
    found = []
    for stage, entry in graph.items():
        if WRITTEN in entry:
            found += structure_problems(stage, entry[WRITTEN]["params"], values)
    for section in (known := [*sections(graph, values)]):
        found += section.problems
    for stage in graph:
        if cls := _class_of_free_values(stage, values.get(stage), known):
            found += own_problems(cls, stage, values[stage], known)
    return found


def own_problems(
    cls: Any, stage: str, given: dict[str, Any], known: Iterable[Section]
) -> list[str]:
    """Say what the stage's class `cls` finds wrong with the values `given`, a line a problem.

    It is shown its parameter objects, those of `known` that are of this stage, where they are
    sound, and its other values as they are.
    """
    objects: dict[str, Any] = dict(given)
    for section in known:
        if section.stage == stage:
            objects[section.field] = None if section.problems else section.build()
    found: list[str] = cls.parameter_problems(f"{PARAMS}: {stage}", objects)
    return found


def stage_class(stage: str) -> Any:
    """Find the class of a stage of dvc.yaml; None where it cannot be imported or is no `Stage`."""
    command = re.search(r"zntrack run (\S+)\.(\w+)", str(read_stages().get(stage, {}).get("cmd")))
    cls = _load(*command.groups()) if command else None
    return cls if hasattr(cls, "parameter_problems") else None


def _class_of_free_values(stage: str, given: Any, known: list[Section]) -> Any:
    """Find the class of a stage that was given values which no parameter object reads."""
    if not isinstance(given, dict):
        return None
    read = {section.field for section in known if section.stage == stage}
    # A class is a slow import: it is left alone where there is nothing to check.
    return stage_class(stage) if any(given[field] for field in {*given} - read) else None


def structure_problems(stage: str, written: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Say where the stage's part of params.yaml has another form than what was `written`."""
    if stage not in values:
        return [f"{PARAMS}: {stage} is missing: `jemtrack graph` writes it"] if written else []
    given = values[stage]
    if not isinstance(given, dict):
        fields = ", ".join(written)
        return [f"{PARAMS}: {stage} must hold the stage's {fields}, got {format_value(given)}"]
    found = [
        f"{PARAMS}: {stage}.{field} is not a field of the stage; {suggestion(str(field), written)}"
        for field in given
        if field not in written
    ]
    for field, value in written.items():
        where = f"{PARAMS}: {stage}.{field}"
        if field not in given:
            found.append(f"{where} is missing: `jemtrack graph` writes it")
        elif isinstance(value, dict) and "_cls" in value and not isinstance(given[field], dict):
            found.append(f"{where} must hold names and values, got {format_value(given[field])}")
    return found


def sections(graph: dict[str, Any], values: dict[str, Any]) -> Iterator[Section]:
    """Find each parameter object of each stage and the class that reads it."""
    for stage, fields in graph.items():
        given = values.get(stage)
        for field, entry in fields.items():
            if not isinstance(entry, dict) or entry.get("_type") != "@dataclasses.dataclass":
                continue
            cls = _load(entry["value"]["module"], entry["value"]["cls"])
            if cls and isinstance(given, dict) and isinstance(given.get(field), dict):
                yield Section(stage, field, cls, given[field])


def read_parameters() -> dict[str, Any]:
    """Read params.yaml.

    Raises:
        InputError: when it is missing or no YAML mapping.
    """
    return _read(PARAMS)


def read_stages() -> dict[str, Any]:
    """Read the stages of dvc.yaml.

    Raises:
        InputError: when it is missing or no YAML mapping.
    """
    stages: dict[str, Any] = _read(DVC).get("stages") or {}
    return stages


def read_graph() -> dict[str, Any]:
    """Read what ZnTrack knows of each stage of dvc.yaml.

    Raises:
        InputError: when a file is missing or broken.
    """
    stages = read_stages()
    return {stage: entry for stage, entry in _read(ZNTRACK).items() if stage in stages}


def listed_inputs(stage: str) -> list[Path]:
    """Give the files and folders that `stage` reads by dvc.yaml, its code left out."""
    deps = [Path(dep) for dep in read_stages().get(stage, {}).get("deps", [])]
    return [path for path in deps if path.parts[0] != "src"]


def maker(path: Path) -> str | None:
    """Name the stage of dvc.yaml that makes the file `path`, if one does."""
    for stage, entry in read_stages().items():
        for out in entry.get("outs", []):
            if path.is_relative_to(out if isinstance(out, str) else next(iter(out))):
                return str(stage)
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path is ZNTRACK else _parsed(text)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: `jemtrack graph` writes it") from None
    except (yaml.YAMLError, ValueError) as error:
        kind = "JSON" if path is ZNTRACK else "YAML"
        raise InputError(f"{path} is not valid {kind}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a mapping of stages, got {format_value(content)}")
    return content


@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> Any:
    """Parse YAML, once where the same text is read again: what is given belongs to all readers."""
    return yaml.load(text, Loader=_Loader)


def _load(module: str, name: str) -> type | None:
    """Find the class; one that cannot be imported is that stage's own trouble, not ours."""
    try:
        cls: type = getattr(importlib.import_module(module), name)
    except Exception:  # a module of the user's own can raise anything
        return None
    return cls
