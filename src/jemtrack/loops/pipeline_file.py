"""Pipelines in YAML files: the loop, its callbacks and its trackers, each by name with options."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jemtrack.documents import Document, Problem, read_document
from jemtrack.errors import InputError
from jemtrack.events.handlers import Callback, EventHandler, build_callback
from jemtrack.loops.pipeline import Pipeline
from jemtrack.parameters import ValueProblem, format_value, type_problems, unknown_names
from jemtrack.recipe.check import component_problems
from jemtrack.record.paths import RunPaths, build_tracker
from jemtrack.shared.components import (
    CALLBACK,
    TRACKER,
    Component,
    build,
    imported,
    load_components,
    option_problems,
    registered,
)

_PIPELINE, _FOLDER, _CALLBACKS, _TRACKERS = "pipeline", "folder", "callbacks", "trackers"
_KEYS = (_PIPELINE, _FOLDER, _CALLBACKS, _TRACKERS)
_KINDS: dict[str, tuple[str, type[Component], str]] = {
    _CALLBACKS: (CALLBACK, Callback, "a callback"),
    _TRACKERS: (TRACKER, EventHandler, "a tracker"),
}


def load_pipeline(path: Path) -> Pipeline:
    """Make the pipeline that a YAML file describes, with its callbacks and trackers.

    The file holds `pipeline` and the lists `callbacks` and `trackers`. Each has a `type`, a
    registered name or the dotted path of a class, and beside it the options that the class
    declares. Paths of trackers and of callbacks' files start from `folder`, if there is one.
    The module of a pipeline's dotted path is imported.

    Raises:
        InputError: a line for each problem, such as a package that is missing.
    """
    document = read_document(path)
    _refuse(path, _problems(document))
    content = document.content
    pipeline = build(*_described(content[_PIPELINE]))
    assert isinstance(pipeline, Pipeline)
    pipeline.folder = Path(content.get(_FOLDER) or "")
    found: list[ValueProblem] = []
    made: dict[str, list[Any]] = {key: [] for key in _KINDS}
    for key in _KINDS:
        for number, entry in enumerate(content.get(key) or []):
            try:
                made[key].append(_made(key, entry, pipeline.folder))
            except InputError as error:
                found.append(ValueProblem((key, number), str(error)))
    _refuse(path, document.problems(found))
    pipeline.callbacks, pipeline.trackers = made[_CALLBACKS], made[_TRACKERS]
    return pipeline


def pipeline_problems(path: Path) -> list[Problem]:
    """List every problem of a pipeline's file, in the order of its lines."""
    return _problems(read_document(path))


def _problems(document: Document) -> list[Problem]:
    return document.problems([] if document.broken else _content_problems(document.content))


def _content_problems(content: Any) -> Iterator[ValueProblem]:
    if not isinstance(content, Mapping):
        yield ValueProblem((), f"must hold {', '.join(_KEYS)}, got {format_value(content)}")
        return
    yield from unknown_names(content, _KEYS, ())
    if not isinstance(content.get(_FOLDER, ""), str | None):
        yield ValueProblem(
            (_FOLDER,), f"must be the path of a folder, got {format_value(content[_FOLDER])}"
        )
    if _PIPELINE in content:
        yield from _pipeline_problems(content)
    else:
        yield ValueProblem((_PIPELINE,), "is missing: it must hold `type` and its options")
    for key, (_, _, kind) in _KINDS.items():
        if content.get(key) is not None:
            yield from component_problems(content[key], _known(key), kind, (key,))


def _pipeline_problems(content: Mapping[str, Any]) -> Iterator[ValueProblem]:
    at, entry = (_PIPELINE,), content[_PIPELINE]
    try:
        known = {**_named(Pipeline), **_by_path(content)}
    except InputError as error:
        yield ValueProblem((*at, "type"), str(error))
        return
    if problems := [*type_problems(entry, "a pipeline", known, at)]:
        yield from problems
        return
    kind, options = _described(entry)
    for name, message in option_problems(known[kind], options):
        yield ValueProblem((*at, name), message)


def _by_path(content: Mapping[str, Any]) -> dict[str, type[Component]]:
    """Import the pipeline's class if its type is a dotted path; return it by that path.

    Raises:
        InputError: when the path leads to no pipeline.
    """
    entry = content[_PIPELINE]
    path = entry.get("type") if isinstance(entry, Mapping) else None
    if not isinstance(path, str) or "." not in path:
        return {}
    found = imported(path)
    if not (isinstance(found, type) and issubclass(found, Pipeline)):
        raise InputError(f"must be the dotted path of a Pipeline, got {path!r}")
    return {path: found}


def _known(key: str) -> dict[str, type[Component]]:
    """Return the project's callbacks or trackers by name, and those that the user registered."""
    kind, base, _ = _KINDS[key]
    return {**load_components(kind), **_named(base)}


def _named(base: type[Component]) -> dict[str, type[Component]]:
    return {name: cls for name, cls in registered().items() if issubclass(cls, base)}


def _made(key: str, entry: Mapping[str, Any], folder: Path) -> Any:
    """Make a callback, or a tracker that writes in `folder`."""
    return (
        build_callback(entry)
        if key == _CALLBACKS
        else build_tracker(entry, RunPaths(folder, Path()))
    )


def _described(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return entry["type"], {name: entry[name] for name in entry if name != "type"}


def _refuse(path: Path, problems: list[Problem]) -> None:
    if problems:
        raise InputError("\n".join(f"{path}:{problem}" for problem in problems))
