"""Check the project's files before anything runs: `jemtrack check`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.project.code import code_deps
from jemtrack.project.params import (
    DVC,
    PARAMS,
    WRITTEN,
    Section,
    load_classes,
    parameter_problems,
    read_graph,
    read_parameters,
    read_stages,
    sections,
    stage_class,
    stage_module,
    structure_problems,
    unknown_stages,
    version_problems,
)
from jemtrack.project.runtime import RUNTIME, runtime_problems
from jemtrack.stages.prepare_data import DataArgs, prepared
from jemtrack.stages.trainer_checks import data_problems


def check() -> str:
    """Check params.yaml and the data it names, the code in dvc.yaml, versions and jemtrack.yaml.

    Return a line that says what was checked.

    Raises:
        InputError: with a line for each problem, if there are any.
    """
    graph, values = read_graph(), read_parameters()
    load_classes(graph, values)
    # Only parameters that are valid by themselves can be checked against the data.
    valid = [section for section in sections(graph, values) if not section.problems]
    found = [
        *unknown_stages(values),
        *parameter_problems(graph, values),
        *_data_problems(graph, valid),
        *_missing_deps(graph, values),
        *version_problems(),
        *runtime_problems(),
    ]
    if found:
        raise InputError("\n".join(found))
    stages = f"{len(graph)} stage" + "s" * (len(graph) != 1)
    return f"{stages}, {PARAMS}, data, versions and {RUNTIME}: no problems"


def _data_problems(graph: dict[str, Any], valid: list[Section]) -> Iterator[str]:
    """Prepare the data in memory, and check the parameters of the stages that read it."""
    for section in valid:
        if not section.reads_as(DataArgs):
            continue
        try:
            data = prepared(section.stage, section.build())
        except InputError as error:
            yield str(error)
            continue
        images = _path(graph[section.stage], "images")
        for reader in valid:
            if _path(graph[reader.stage], "data") == images:
                yield from data_problems(reader, data, is_running=False)


def _path(entry: dict[str, Any], field: str) -> str | None:
    """Return the path in `field` of a stage's entry in zntrack.json; None if it has none."""
    value = entry.get(field)
    path = value.get("value") if isinstance(value, dict) else None
    return path.replace("$nwd$", entry["nwd"]["value"]) if isinstance(path, str) else None


def _missing_deps(graph: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    """Yield a problem for each stage that uses code, or reads a file, that dvc.yaml lacks."""
    stages = read_stages()
    for name, entry in graph.items():
        modules = [stage_module(name)]
        modules += [
            field["value"]["module"]
            for field in entry.values()
            if isinstance(field, dict) and field.get("_type") == "@dataclasses.dataclass"
        ]
        deps = {*map(str, stages[name].get("deps", []))}
        written = entry.get(WRITTEN, {}).get("params", {})
        # What its section lacks, `parameter_problems` reports.
        is_whole = not structure_problems(name, written, values)
        chosen, inputs = _chosen(name, values.get(name)) if is_whole else ([], [])
        for path in inputs:
            if path not in deps and Path(path).exists():
                yield f"{DVC}: {name} does not depend on {path}: type `jemtrack graph`"
        if missing := sorted({*code_deps([*modules, *chosen])} - deps):
            yield (
                f"{DVC}: {name}.deps lacks {', '.join(missing)}, which the stage imports: "
                "type `jemtrack graph`, or the node's write_graph()"
            )


def _chosen(name: str, given: Any) -> tuple[list[str], list[str]]:
    """Return the modules and the input files that the stage's parameters choose."""
    cls = stage_class(name)
    if cls is None or not isinstance(given, dict):
        return [], []
    try:
        return cls.code_modules(given), cls.input_paths(given)
    except InputError:  # `parameter_problems` reports it
        return [], []
