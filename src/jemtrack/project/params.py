"""`params.yaml`, checked against the classes that read it."""

import contextlib
import functools
import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from jemtrack.errors import InputError
from jemtrack.parameters import format_value, problem_lines, suggestion
from jemtrack.project.code import PACKAGE, source_folder
from jemtrack.project.schemas import SCHEMAS, Schema, schema_problems

DVC = Path("dvc.yaml")
PARAMS = Path("params.yaml")
ZNTRACK = Path("zntrack.json")
VERSIONS = Path("versions.yaml")

# The packages whose version can change a figure, as parameters of every stage.
DECISIVE = ("numpy", "torch")
_HERE = Path(__file__).resolve().parents[1]

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


@dataclass(frozen=True)
class Section:
    """The values of one parameter object of a stage, and the class that reads them.

    Attributes:
        stage: the stage's name.
        field: the field of the stage that holds the object.
        cls: dotted path of the object's class.
        values: of its parameters, and its class under `_cls`.
        schema: the form of the parameters, for processes that have not imported the class.
    """

    stage: str
    field: str
    cls: str
    values: dict[str, Any]
    schema: Schema | None = None

    @property
    def where(self) -> str:
        """Name the place in the file."""
        return f"{PARAMS}: {self.stage}.{self.field}"

    @property
    def problems(self) -> list[str]:
        """Describe what is wrong with the values, a line a problem."""
        values = dict(self.values)
        named = values.pop("_cls", self.cls)
        if named != self.cls:
            return [
                f"{self.where}._cls must be {self.cls}, got {format_value(named)}; another class "
                "is given in Python, followed by `jemtrack graph` or the node's write_graph()"
            ]
        module, _, name = self.cls.rpartition(".")
        if self.schema and module not in sys.modules:
            found = schema_problems(self.schema, name, values)
            return [f"{self.where}.{problem}" for problem in found]
        return problem_lines(self.loaded, values, self.where) if self.loaded else []

    @property
    def loaded(self) -> Any:
        """The class, imported; None if that fails, which is the stage's own trouble."""
        return _load(*self.cls.rpartition(".")[::2])

    def build(self) -> Any:
        """Make the object; its values must have no problems."""
        return self.loaded(**{name: self.values[name] for name in self.values if name != "_cls"})


def check_parameter_file() -> None:
    """Check the parameters of every stage, so that a problem of a late one stops the first.

    Only what this process has imported is asked for its own checks; the rest fits its schemas.

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
    cls = _load(_stage_module(stage), _command(stage)[1])
    return cls if hasattr(cls, "parameter_problems") else None


def _stage_module(stage: str) -> str:
    return _command(stage)[0]


def _command(stage: str) -> tuple[str, str]:
    """Return the module and the class that a stage runs by dvc.yaml; nothing if it is no node."""
    command = str(read_stages().get(stage, {}).get("cmd"))
    found = re.search(r"zntrack run (\S+)\.(\w+)", command)
    return (found[1], found[2]) if found else ("", "")


def _class_of_free_values(stage: str, given: Any, known: list[Section]) -> Any:
    """Find the class of a stage that was given values which no parameter object reads."""
    if not isinstance(given, dict):
        return None
    read = {section.field for section in known if section.stage == stage}
    chosen = any(given[field] for field in {*given} - read)
    # Importing another stage's class is slow: that stage's own process checks by it.
    return stage_class(stage) if chosen and _stage_module(stage) in sys.modules else None


def load_classes(graph: dict[str, Any], values: dict[str, Any]) -> None:
    """Import the classes of all stages and of their parameters, so that all checks are made."""
    for stage in graph:
        stage_class(stage)
    for section in sections(graph, values):
        section.loaded  # noqa: B018


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
    schemas = _read(ZNTRACK).get(SCHEMAS, {})
    for stage, fields in graph.items():
        given = values.get(stage)
        for field, entry in fields.items():
            if not isinstance(entry, dict) or entry.get("_type") != "@dataclasses.dataclass":
                continue
            cls = f"{entry['value']['module']}.{entry['value']['cls']}"
            if isinstance(given, dict) and isinstance(given.get(field), dict):
                yield Section(stage, field, cls, given[field], schemas.get(cls))


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


def installed_versions(listed: Iterable[str] = ()) -> dict[str, str]:
    """Look up the versions of the packages that decide figures, and of those that are `listed`.

    A part such as `+cpu`, which says how a package was built, is left out. jemtrack counts where
    it is installed; where its source is in the project, each stage depends on its own code.
    """
    own = () if (source_folder() / PACKAGE).resolve() == _HERE else (PACKAGE,)
    found = {}
    for name in sorted({*DECISIVE, *own, *listed}):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name).partition("+")[0]
    return found


def version_problems() -> list[str]:
    """Compare versions.yaml with what is installed; describe each difference in a line."""
    written = _read(VERSIONS)
    installed = installed_versions(written)
    return [
        f"{VERSIONS}: {name} is {format_value(written.get(name))}, but {value} is installed: type "
        "`jemtrack graph`; what was made with the other version is then stale"
        for name, value in installed.items()
        if written.get(name) != value
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = _parsed(text, path == ZNTRACK)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: `jemtrack graph` writes it") from None
    except (yaml.YAMLError, ValueError) as error:
        kind = "JSON" if path is ZNTRACK else "YAML"
        raise InputError(f"{path} is not valid {kind}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a mapping of stages, got {format_value(content)}")
    return content


@functools.lru_cache(maxsize=8)
def _parsed(text: str, is_json: bool) -> Any:
    """Parse a file's text; the same text is parsed once, and all readers share the result."""
    return json.loads(text) if is_json else yaml.load(text, Loader=_Loader)


def _load(module: str, name: str) -> type | None:
    """Find the class; one that cannot be imported is that stage's own trouble, not ours."""
    try:
        cls: type = getattr(importlib.import_module(module), name)
    except Exception:  # a module of the user's own can raise anything
        return None
    return cls
