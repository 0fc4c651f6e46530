"""Pipelines in YAML files: the loop, its callbacks and its trackers, each by name with options."""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jemtrack.component_list import CALLBACK, TRACKER, load_components
from jemtrack.engine.callbacks import Callback
from jemtrack.engine.components import Component, option_faults, registered
from jemtrack.engine.listeners import Listener
from jemtrack.engine.pipeline import Pipeline
from jemtrack.engine.recipe_form.components import component_faults
from jemtrack.engine.recipe_form.document import Document, Fault, Problem, read_document
from jemtrack.engine.recipe_form.values import not_a_mapping, typed_name_fault, unknown_names
from jemtrack.errors import InputError
from jemtrack.parameters import shown

_PIPELINE, _CALLBACKS, _TRACKERS = "pipeline", "callbacks", "trackers"
_KINDS: dict[str, tuple[str, type[Component], str]] = {
    _CALLBACKS: (CALLBACK, Callback, "a callback"),
    _TRACKERS: (TRACKER, Listener, "a tracker"),
}


def load_pipeline(path: Path) -> Pipeline:
    """Make the pipeline that a YAML file describes, with its callbacks and trackers.

    The file holds `pipeline`, whose `type` is a registered name or the dotted path of a class,
    and the lists `callbacks` and `trackers` of registered names. What stands beside a `type` are
    the options that the class declares. The module of a dotted path is imported.

    Raises:
        InputError: a line for each problem.
    """
    document = read_document(path)
    if found := _problems(document):
        raise InputError("\n".join(f"{path}:{problem}" for problem in found))
    content = document.content
    pipeline = _made(content[_PIPELINE], {**_named(Pipeline), **_by_path(content)})
    assert isinstance(pipeline, Pipeline)
    known = {key: _known(key) for key in _KINDS}
    pipeline.callbacks, pipeline.listeners = (
        [_made(entry, known[key]) for entry in content.get(key) or []] for key in _KINDS
    )
    return pipeline


def pipeline_problems(path: Path) -> list[Problem]:
    """Give every problem of a pipeline's file, in the order of its lines."""
    return _problems(read_document(path))


def _problems(document: Document) -> list[Problem]:
    return document.problems([] if document.broken else _faults(document.content))


def _faults(content: Any) -> Iterator[Fault]:
    if not isinstance(content, Mapping):
        yield Fault((), f"must hold {', '.join((_PIPELINE, *_KINDS))}, got {shown(content)}")
        return
    yield from unknown_names(content, (_PIPELINE, *_KINDS), ())
    if _PIPELINE in content:
        yield from _pipeline_faults(content)
    else:
        yield Fault((_PIPELINE,), "is missing: it must hold `type` and its options")
    for key, (_, _, kind) in _KINDS.items():
        if content.get(key) is not None:
            yield from component_faults(content[key], _known(key), kind, (key,))


def _pipeline_faults(content: Mapping[str, Any]) -> Iterator[Fault]:
    at, entry = (_PIPELINE,), content[_PIPELINE]
    if not isinstance(entry, Mapping):
        yield from not_a_mapping(entry, "`type` and its options", at)
        return
    try:
        known = {**_named(Pipeline), **_by_path(content)}
    except InputError as error:
        yield Fault((*at, "type"), str(error))
        return
    if fault := typed_name_fault(entry, known, "a pipeline", at):
        yield fault
        return
    options = {name: entry[name] for name in entry if name != "type"}
    for name, message in option_faults(known[entry["type"]], options):
        yield Fault((*at, name), message)


def _by_path(content: Mapping[str, Any]) -> dict[str, type[Component]]:
    """Import the class where the pipeline's type is a dotted path; give it by that path.

    Raises:
        InputError: when the path leads to no pipeline.
    """
    path = content[_PIPELINE].get("type")
    if not isinstance(path, str) or "." not in path:
        return {}
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path!r} cannot be imported: {reason}") from error
    if not (isinstance(found, type) and issubclass(found, Pipeline)):
        raise InputError(f"must be the dotted path of a Pipeline, got {path!r}")
    return {path: found}


def _known(key: str) -> dict[str, type[Component]]:
    """Give the project's callbacks or trackers by name, and those that the user registered."""
    kind, base, _ = _KINDS[key]
    return {**load_components(kind), **_named(base)}


def _named(base: type[Component]) -> dict[str, type[Component]]:
    return {name: cls for name, cls in registered().items() if issubclass(cls, base)}


def _made(entry: Mapping[str, Any], known: Mapping[str, type[Component]]) -> Any:
    options = {name: entry[name] for name in entry if name != "type"}
    return known[entry["type"]](**options)
