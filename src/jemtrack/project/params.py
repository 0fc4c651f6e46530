"""Read params.yaml, dvc.yaml and zntrack.json, and check the parameters against their classes."""

import contextlib
import dataclasses
import functools
import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from jemtrack.documents import parse_json, parse_yaml, read_text
from jemtrack.errors import InputError
from jemtrack.files import has_library
from jemtrack.parameters import MOST_PROBLEMS, format_value, problem_lines, suggestion
from jemtrack.project.code import PACKAGE, source_folder
from jemtrack.project.schemas import SCHEMAS, Schema, schema_problems

DVC = Path("dvc.yaml")
PARAMS = Path("params.yaml")
ZNTRACK = Path("zntrack.json")
VERSIONS = Path("versions.yaml")
LOCK = Path("dvc.lock")

# The packages whose version can change a result: their versions are parameters of every stage.
DECISIVE = ("numpy", "torch")

# Under this key, a stage's entry in zntrack.json records what the graph wrote for it, so that the
# next `write_graph` can tell a change by hand from a change of the graph.
WRITTEN = "_written"
_OBJECT = "@dataclasses.dataclass"  # ZnTrack's type of a parameter object
_LISTS = ("deps", "params", "outs", "metrics", "plots")


@dataclass(frozen=True)
class Section:
    """The values of one parameter object of a stage, and the class that reads them.

    Attributes:
        stage: name of the stage.
        field: field of the stage that holds the object.
        cls: dotted path of the object's class.
        values: its parameters by name, and its class under `_cls`.
        schema: JSON schema of the parameters, for processes that have not imported the class.
    """

    stage: str
    field: str
    cls: str
    values: dict[str, Any]
    schema: Schema | None = None

    @property
    def where(self) -> str:
        """The file and the path of the values in it, as messages begin."""
        return f"{PARAMS}: {self.stage}.{self.field}"

    @property
    def problems(self) -> list[str]:
        """The problems of the values, one line each."""
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
        if self.loaded and not dataclasses.is_dataclass(self.loaded):  # it must not be called
            return [f"{ZNTRACK}: {self.stage}.{self.field} must be a dataclass, got {self.cls}"]
        return problem_lines(self.loaded, values, self.where) if self.loaded else []

    @property
    def loaded(self) -> Any:
        """The class, imported; None if the import fails, which the stage itself will report."""
        return _load(*self.cls.rpartition(".")[::2])

    def reads_as(self, cls: type) -> bool:
        """Return whether the class of the section is `cls` or a subclass of it."""
        return isinstance(self.loaded, type) and issubclass(self.loaded, cls)

    def build(self) -> Any:
        """Construct the object; the values must have no problems."""
        return self.loaded(**{name: self.values[name] for name in self.values if name != "_cls"})


def check_parameter_file() -> None:
    """Check the parameters of all stages, so that a problem in a late stage stops the first one.

    Classes that this process has imported check their values; all others are checked by their
    JSON schemas, which takes no import.

    Raises:
        InputError: with a line for each value that has a wrong type, is out of range or unknown.
    """
    values = read_parameters()
    if found := [*unknown_stages(values), *parameter_problems(read_graph(), values)]:
        raise InputError("\n".join(found))


def parameter_problems(graph: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """List the problems of the values of params.yaml, one line each."""
    found: list[str] = []
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
    """List the problems that the stage's class `cls` finds in the values `given`, one line each.

    It receives its parameter objects, made from the sections of this stage in `known`, with None
    for one that has problems, and all other values as they are in the file.
    """
    objects: dict[str, Any] = dict(given)
    for section in known:
        if section.stage == stage:
            objects[section.field] = None if section.problems else section.build()
    found: list[str] = cls.parameter_problems(f"{PARAMS}: {stage}", objects)
    return found


def stage_class(stage: str) -> Any:
    """Import the class of a stage of dvc.yaml; return None if that fails or it is no `Stage`."""
    cls = _load(*_command(stage))
    return cls if hasattr(cls, "parameter_problems") else None


def stage_module(stage: str) -> str:
    """Return the module of the class of a stage of dvc.yaml; "" if it runs no node."""
    return _command(stage)[0]


def _command(stage: str) -> tuple[str, str]:
    """Return the module and the class in the stage's command; empty if it runs no node."""
    command = str(read_stages().get(stage, {}).get("cmd"))
    found = re.search(r"(?:zntrack run|jemtrack stage) (\S+)\.(\w+)", command)
    return (found[1], found[2]) if found else ("", "")


def _class_of_free_values(stage: str, given: Any, known: list[Section]) -> Any:
    """Return the class of a stage that has values outside its parameter objects, if imported."""
    if not isinstance(given, dict):
        return None
    read = {section.field for section in known if section.stage == stage}
    chosen = any(given[field] for field in {*given} - read)
    # Importing the class of another stage is slow; that stage's own process runs its checks.
    return stage_class(stage) if chosen and stage_module(stage) in sys.modules else None


def load_classes(graph: dict[str, Any], values: dict[str, Any]) -> None:
    """Import the classes of all stages and of their parameters, so that all checks run."""
    for stage in graph:
        stage_class(stage)
    for section in sections(graph, values):
        section.loaded  # noqa: B018


def structure_problems(stage: str, written: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """List where the stage's section of params.yaml lacks or adds fields to what was `written`."""
    if stage not in values:
        return [f"{PARAMS}: {stage} is missing: `jemtrack graph` writes it"] if written else []
    given = values[stage]
    if not isinstance(given, dict):
        fields = ", ".join(written)
        return [f"{PARAMS}: {stage} must hold the stage's {fields}, got {format_value(given)}"]
    found = [
        f"{PARAMS}: {stage}.{field} is not a field of the stage; {suggestion(str(field), written)}"
        for field in islice((field for field in given if field not in written), MOST_PROBLEMS)
    ]
    for field, value in written.items():
        where = f"{PARAMS}: {stage}.{field}"
        if field not in given:
            found.append(f"{where} is missing: `jemtrack graph` writes it")
        elif _is_object(value) and not (isinstance(given[field], dict) and given[field]):
            found.append(f"{where} must hold names and values, got {format_value(given[field])}")
    return found


def _is_object(written: Any) -> bool:
    return isinstance(written, dict) and "_cls" in written


def unknown_stages(values: dict[str, Any]) -> list[str]:
    """List the sections of params.yaml that no stage of dvc.yaml has or mentions, one line each."""
    stages = read_stages()
    said = [{**stage, "desc": ""} for stage in stages.values()]
    text = json.dumps({**_read(DVC), "stages": said}, default=str, ensure_ascii=False)
    mentioned = {*re.findall(r"[\w-]+", text)}
    unknown = (name for name in values if name not in stages and name not in mentioned)
    return [
        f"{PARAMS}: {name} is no stage of {DVC}, which mentions it nowhere: remove it; "
        f"{suggestion(name, stages)}"
        for name in islice(unknown, MOST_PROBLEMS)
    ]


def sections(graph: dict[str, Any], values: dict[str, Any]) -> Iterator[Section]:
    """Yield a section for each parameter object of each stage."""
    schemas = _entries().get(SCHEMAS, {})
    for stage, fields in graph.items():
        given = values.get(stage)
        for field, entry in fields.items():
            if not isinstance(entry, dict) or entry.get("_type") != _OBJECT:
                continue
            cls = f"{entry['value']['module']}.{entry['value']['cls']}"
            if isinstance(given, dict) and isinstance(given.get(field), dict):
                yield Section(stage, field, cls, given[field], schemas.get(cls))


def read_parameters() -> dict[str, Any]:
    """Read params.yaml.

    Raises:
        InputError: if it is missing or not a YAML mapping.
    """
    return _read(PARAMS)


def read_stages() -> dict[str, Any]:
    """Read the stages of dvc.yaml.

    Raises:
        InputError: if it is missing or not a YAML mapping.
    """
    return checked_stages(_read(DVC))


def read_graph() -> dict[str, Any]:
    """Read ZnTrack's entry of each stage of dvc.yaml from zntrack.json.

    Raises:
        InputError: if a file is missing or broken.
    """
    stages = read_stages()
    return {stage: entry for stage, entry in _entries().items() if stage in stages}


def _entries() -> dict[str, Any]:
    return checked_entries(_read(ZNTRACK))


def checked_stages(content: dict[str, Any]) -> dict[str, Any]:
    """Return the stages in the content of dvc.yaml.

    Raises:
        InputError: if they do not have the form that DVC demands.
    """
    stages = content.get("stages") or {}
    for name, entry in stages.items() if isinstance(stages, dict) else [("stages", None)]:
        lists = [entry.get(key) or [] for key in _LISTS] if isinstance(entry, dict) else [None]
        if not all(isinstance(each, list) and all(map(_is_path, each)) for each in lists):
            raise InputError(f"{DVC}: {name} is not in the form of DVC's stages")
    return dict(stages)


def _is_path(entry: Any) -> bool:
    """Return whether an entry of a list of a stage is a path, or {path: options}."""
    return isinstance(entry, str) or (isinstance(entry, dict) and bool(entry))


def checked_entries(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of zntrack.json.

    Raises:
        InputError: if it is not as `jemtrack graph` writes it.
    """
    for name, entry in content.items():
        if not isinstance(entry, dict) or (name != SCHEMAS and not _is_entry(entry)):
            raise InputError(
                f"{ZNTRACK}: {name} is not as `jemtrack graph` wrote it: restore the file by "
                "`git checkout`, or remove it and type `jemtrack graph`"
            )
    return content


def _is_entry(entry: dict[str, Any]) -> bool:
    written = entry.get(WRITTEN, {"params": {}})
    if not isinstance(written, dict) or not isinstance(written.get("params"), dict):
        return False
    folder = entry.get("nwd")
    if not isinstance(folder, dict) or not isinstance(folder.get("value"), str):
        return False
    fields = [field for field in entry.values() if isinstance(field, dict)]
    objects = [field.get("value") for field in fields if field.get("_type") == _OBJECT]
    return all(
        isinstance(value, dict) and all(isinstance(value.get(n), str) for n in ("module", "cls"))
        for value in objects
    )


def maker(path: Path) -> str | None:
    """Return the stage of dvc.yaml whose output contains `path`; None if there is none."""
    for stage in read_stages():
        if any(path.is_relative_to(out) for out in stage_outs(stage)):
            return str(stage)
    return None


def stage_outs(stage: str) -> list[Path]:
    """Return the outs of a stage of dvc.yaml, metrics and plots included."""
    entry = read_stages().get(stage, {})
    outs = [out for kind in ("outs", "metrics", "plots") for out in entry.get(kind, [])]
    return [Path(out if isinstance(out, str) else next(iter(out))) for out in outs]


def read_lock() -> dict[str, Any]:
    """Read the stages of dvc.lock; empty if DVC has written none.

    Raises:
        InputError: if it is not a YAML mapping.
    """
    return _read(LOCK).get("stages") or {} if LOCK.exists() else {}


def installed_versions(listed: Iterable[str] = ()) -> dict[str, str]:
    """Look up the versions of the packages that can change a result, and of those `listed`.

    The local part of a version, such as `+cpu`, is left out. The version of jemtrack counts if it
    is installed as a package; if its source is in the project, stages depend on the source.
    """
    own = () if has_library(source_folder()) else (PACKAGE,)
    found = {}
    for name in sorted({*DECISIVE, *own, *listed}):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name).partition("+")[0]
    return found


def version_problems() -> list[str]:
    """List where versions.yaml differs from what is installed, one line each."""
    written = _read(VERSIONS)
    installed = installed_versions(written)
    return [
        f"{VERSIONS}: {name} is {format_value(written.get(name))}, but {value} is installed: type "
        "`jemtrack graph`; what was made with the other version is then stale"
        for name, value in installed.items()
        if written.get(name) != value
    ]


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path} is missing: `jemtrack graph` writes it")
    return read_mapping(path)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a file of the graph, of YAML or, if it is called so, JSON; its content is shared.

    Raises:
        InputError: a line for each problem, if it cannot be read or is no mapping.
    """
    content = _parsed(read_text(path), path)
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a mapping of stages, got {format_value(content)}")
    return content


@functools.lru_cache(maxsize=8)
def _parsed(text: str, path: Path) -> Any:
    """Parse the text of a file; cached, so all readers share one result and must not change it."""
    return parse_json(text, path) if path.suffix == ".json" else parse_yaml(text, path)


def _load(module: str, name: str) -> type | None:
    """Import the class; return None if that fails, which its own stage will report."""
    try:
        cls: type = getattr(importlib.import_module(module), name)
    except Exception:  # importing a user's module can raise anything
        return None
    return cls
