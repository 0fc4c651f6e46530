"""Read `jemtrack.yaml`: settings of this machine, such as trackers, on which no result depends."""

import math
import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from jemtrack.documents import Document, read_document
from jemtrack.errors import InputError
from jemtrack.events.handlers import EventHandler
from jemtrack.parameters import (
    Place,
    ValueProblem,
    not_a_mapping,
    parameters,
    suggestion,
    unknown_names,
    value_problems,
)
from jemtrack.project.provenance import project_root
from jemtrack.project.workers.clusters import Cluster, cluster_problems
from jemtrack.record.paths import RunPaths, build_tracker
from jemtrack.shared.components import TRACKER, load_components

RUNTIME = "jemtrack.yaml"
_EVERY = "JEMTRACK_CHECKPOINT_SECONDS"
_SECONDS, _TRACKERS, _CLUSTERS = "checkpoint_seconds", "trackers", "clusters"


@parameters
class RuntimeSettings:
    """The settings of the file other than `trackers` and `clusters`.

    Attributes:
        checkpoint_seconds: seconds between two checkpoints.
    """

    checkpoint_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0


def checkpoint_seconds() -> float:
    """Return the seconds between two checkpoints, from the environment or else from the file.

    Raises:
        InputError: if the environment has no valid number, or the file has a problem.
    """
    if _EVERY not in os.environ:
        return float(_read()[1].get(_SECONDS, RuntimeSettings().checkpoint_seconds))
    try:
        seconds = float(os.environ[_EVERY])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{_EVERY} must be a number of seconds >= 0, got {os.environ[_EVERY]!r}")
    return seconds


def runtime_trackers(run_folder: Path, *, live: bool = True) -> list[EventHandler]:
    """Build the trackers of the file for the run in `run_folder`, relative to the project's root.

    Unless `live`, trackers that only show or measure a running training are left out.

    Raises:
        InputError: with a line for each problem of the file, such as a missing package.
    """
    document, settings = _read()
    trackers, problems = _built(settings, run_folder)
    _raise_problems(document, problems)
    return [each for each in trackers if live or not getattr(each, "live", False)]


def _built(
    settings: Mapping[str, Any], run_folder: Path, without: Container[Place] = ()
) -> tuple[list[EventHandler], list[ValueProblem]]:
    """Build the trackers of the settings, `without` those at some places; return what failed."""
    paths = RunPaths(project_root() / run_folder, project_root())
    trackers: list[EventHandler] = []
    problems = []
    for number, entry in enumerate(settings.get(_TRACKERS, [])):
        place = (_TRACKERS, number)
        if place not in without:
            try:
                trackers.append(build_tracker(entry, paths))
            except InputError as error:
                problems.append(ValueProblem(place, str(error)))
    return trackers, problems


def runtime_cluster(name: str) -> Cluster:
    """Return the cluster of that name in the file.

    Raises:
        InputError: if there is none, or the file has a problem.
    """
    clusters = _read()[1].get(_CLUSTERS, {})
    if name not in clusters:
        hint = suggestion(name, clusters) if clusters else "it has none"
        raise InputError(f"{RUNTIME}: {_CLUSTERS} has no {name!r}; {hint}")
    return Cluster(**clusters[name])


def runtime_problems() -> list[str]:
    """List the problems of the file, and the packages that it needs and lacks, one line each."""
    document = _document()
    found = [] if document.broken else [*_problems(document.content)]
    wrong = {problem.place[:2] for problem in found}
    if (_TRACKERS,) not in wrong:
        found += _built(_settings(document.content), Path(), wrong)[1]
    lines = [problem.of(Path(RUNTIME)) for problem in document.problems(found)]
    if _EVERY in os.environ:
        try:
            checkpoint_seconds()
        except InputError as error:
            lines.append(str(error))
    return lines


def _document() -> Document:
    """Read the file; the document is empty if there is none."""
    path = project_root() / RUNTIME
    return read_document(path) if path.exists() else Document()


def _read() -> tuple[Document, dict[str, Any]]:
    """Read the file and its settings, which must have no problem."""
    document = _document()
    _raise_problems(document, [] if document.broken else [*_problems(document.content)])
    return document, _settings(document.content)


def _raise_problems(document: Document, problems: list[ValueProblem]) -> None:
    if found := document.problems(problems):
        raise InputError("\n".join(problem.of(Path(RUNTIME)) for problem in found))


def _problems(content: Any) -> Iterator[ValueProblem]:
    if content is None:  # there is no file, or it is empty or commented out
        return
    # Imported here: most projects have no such file.
    from jemtrack.recipe.check import component_problems

    yield from not_a_mapping(content, f"{_SECONDS}, {_TRACKERS} and {_CLUSTERS}", ())
    if not isinstance(content, Mapping):
        return
    yield from unknown_names(content, [_SECONDS, _TRACKERS, _CLUSTERS], ())
    chosen = _settings(content)
    seconds = {name: chosen[name] for name in [_SECONDS] if name in chosen}
    yield from value_problems(RuntimeSettings, seconds, ())
    if _TRACKERS in chosen:
        known = load_components(TRACKER)
        yield from component_problems(chosen[_TRACKERS], known, "a tracker", (_TRACKERS,))
    yield from cluster_problems(chosen.get(_CLUSTERS, {}), (_CLUSTERS,))


def _settings(content: Any) -> dict[str, Any]:
    """Return the settings of the file, without names that have no value."""
    given = content if isinstance(content, Mapping) else {}
    return {name: value for name, value in given.items() if value is not None}
