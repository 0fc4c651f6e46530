"""What can be said of the project's files before anything runs."""

import re
from collections.abc import Iterator
from typing import Any

from jemtrack.data.images import DataSplits
from jemtrack.errors import InputError
from jemtrack.project.code import code_deps
from jemtrack.project.params import (
    DVC,
    Section,
    load_classes,
    parameter_problems,
    read_graph,
    read_parameters,
    read_stages,
    sections,
    stage_class,
    version_problems,
)
from jemtrack.project.runtime import runtime_problems
from jemtrack.stages.evaluate_x import EvalArgs, chosen_images
from jemtrack.stages.prepare_data import DataArgs, prepared
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.trainer_checks import trainer_problems


def check() -> None:
    """Check params.yaml, the data that it names, dvc.yaml's list of code, and jemtrack.yaml.

    Raises:
        InputError: with a line for each problem.
    """
    graph, values = read_graph(), read_parameters()
    load_classes(graph, values)
    sound = [section for section in sections(graph, values) if not section.problems]
    found = [
        *parameter_problems(graph, values),
        *_misfits(graph, sound),
        *_stale_code(graph, values),
        *version_problems(),
        *runtime_problems(),
    ]
    if found:
        raise InputError("\n".join(found))


def _misfits(graph: dict[str, Any], sound: list[Section]) -> Iterator[str]:
    """Prepare the data, in memory alone, and hold the parameters of what reads them against them.

    Only `sound` parameters, which fit by themselves, can be held against anything.
    """
    for section in sound:
        if not _is_of(section, DataArgs):
            continue
        try:
            data = prepared(section.stage, section.build())
        except InputError as error:
            yield str(error)
            continue
        images = _path(graph[section.stage], "images")
        for reader in sound:
            if _path(graph[reader.stage], "data") == images:
                yield from _reader_misfits(reader, data)


def _path(entry: dict[str, Any], field: str) -> str | None:
    """Give the path that a stage's entry in zntrack.json has in `field`."""
    value = entry.get(field)
    path = value.get("value") if isinstance(value, dict) else None
    return path.replace("$nwd$", entry["nwd"]["value"]) if isinstance(path, str) else None


def _is_of(section: Section, cls: type) -> bool:
    return section.loaded is not None and issubclass(section.loaded, cls)


def _reader_misfits(section: Section, data: DataSplits) -> Iterator[str]:
    if _is_of(section, TrainArgs):
        yield from trainer_problems(section, data, is_running=False)
    elif _is_of(section, EvalArgs):
        try:
            chosen_images(section.stage, section.build(), data)
        except InputError as error:
            yield str(error)


def _stale_code(graph: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    """Find stages whose code gained a file since the graph was written, or whose recipe did."""
    stages = read_stages()
    for name, entry in graph.items():
        modules = re.findall(r"zntrack run (\S+)\.\w+", str(stages[name].get("cmd")))
        modules += [
            field["value"]["module"]
            for field in entry.values()
            if isinstance(field, dict) and field.get("_type") == "@dataclasses.dataclass"
        ]
        deps = {*map(str, stages[name].get("deps", []))}
        chosen, recipe = _chosen(name, values.get(name))
        if recipe and recipe not in deps:
            yield f"{DVC}: {name} does not depend on {recipe}: type `jemtrack graph`"
        if missing := sorted({*code_deps([*modules, *chosen])} - deps):
            yield (
                f"{DVC}: {name}.deps lacks {', '.join(missing)}, which the stage imports: "
                "type `jemtrack graph`, or the node's write_graph()"
            )


def _chosen(stage: str, given: Any) -> tuple[list[str], str]:
    """Name the modules that the stage runs, and the recipe's file, by its parameters."""
    cls = stage_class(stage)
    if cls is None or not isinstance(given, dict):
        return [], ""
    try:
        modules: list[str] = cls.code_modules(given)
    except InputError:  # it is among the parameters' problems
        return [], ""
    recipe = given.get("recipe")
    return modules, recipe if isinstance(recipe, str) else ""
