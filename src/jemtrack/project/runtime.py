"""`jemtrack.yaml`: how trainings run here; no output of a stage depends on it."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from jemtrack.errors import InputError
from jemtrack.parameters import ValueProblem, parameters, value_problems
from jemtrack.recipe.check import Components, component_problems, not_a_mapping, unknown_names
from jemtrack.recipe.yaml_lines import Document, read_document
from jemtrack.record.paths import RunPaths, build_tracker, location_problems
from jemtrack.train.components import TRACKER, load_components
from jemtrack.train.handlers import Tracker

RUNTIME = "jemtrack.yaml"
_EVERY = "JEMTRACK_CHECKPOINT_SECONDS"
_SECONDS, _TRACKERS = "checkpoint_seconds", "trackers"
_LIVE = {"lines", "progress", "performance"}


@parameters
class RuntimeSettings:
    """What the file says beside `trackers`.

    Attributes:
        checkpoint_seconds: seconds between two checkpoints.
    """

    checkpoint_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0


def project_root() -> Path:
    """Give the folder of the project's graph, also where DVC runs an experiment in a copy of it.

    It is where dvc.yaml is: the project's root, or the folder of another of its graphs.
    """
    here = Path.cwd()
    if "DVC_ROOT" not in os.environ:
        return Path()
    # DVC names the root of the project, not of its copy, in this variable.
    root = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    return Path(os.environ["DVC_ROOT"]) / here.relative_to(root)


def checkpoint_seconds() -> float:
    """Give the seconds between two checkpoints: by the environment, else by the file.

    Raises:
        InputError: when they are no number, or the file has a problem.
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


def runtime_trackers(run_folder: Path, *, live: bool = True) -> list[Tracker]:
    """Make the trackers that the file asks for, for the run of that folder of the project.

    Those that show or measure a training while it goes on are left out where none is `live`.

    Raises:
        InputError: a line for each problem of the file, such as a package that is missing.
    """
    document, given = _read()
    places = RunPaths(project_root() / run_folder, project_root())
    made: list[Tracker] = []
    faults = []
    for number, entry in enumerate(given.get(_TRACKERS, [])):
        if live or entry["type"] not in _LIVE:
            try:
                made.append(build_tracker(entry, places))
            except InputError as error:
                faults.append(ValueProblem((_TRACKERS, number), str(error)))
    _refuse(document, faults)
    return made


def runtime_problems() -> list[str]:
    """Say what is wrong with the file or with what it needs, a line a problem."""
    try:
        runtime_trackers(Path())
        checkpoint_seconds()
    except InputError as error:
        return str(error).splitlines()
    return []


def _read() -> tuple[Document, dict[str, Any]]:
    """Read the file, where there is one, and what it says."""
    path = project_root() / RUNTIME
    document = read_document(path) if path.exists() else Document()
    _refuse(document, [] if document.broken else [*_faults(document.content)])
    return document, _given(document.content)


def _refuse(document: Document, faults: list[ValueProblem]) -> None:
    if found := document.problems(faults):
        raise InputError("\n".join(problem.of(Path(RUNTIME)) for problem in found))


def _faults(content: Any) -> Iterator[ValueProblem]:
    if content is None:  # empty, or all of it commented out
        return
    yield from not_a_mapping(content, f"checkpoint_seconds and {_TRACKERS}", ())
    if not isinstance(content, Mapping):
        return
    yield from unknown_names(content, [_SECONDS, _TRACKERS], ())
    given = _given(content)
    yield from value_problems(RuntimeSettings, {k: given[k] for k in [_SECONDS] if k in given}, ())
    if _TRACKERS in given:
        known = load_components(TRACKER)
        found = [*component_problems(given[_TRACKERS], known, "a tracker", (_TRACKERS,))]
        yield from found or _place_faults(given[_TRACKERS], known)


def _place_faults(entries: list[Mapping[str, Any]], known: Components) -> Iterator[ValueProblem]:
    # One's own, by its dotted path, is imported when it is made.
    ours = {n: (known[e["type"]], e) for n, e in enumerate(entries) if e["type"] in known}
    for number, option, message in location_problems(ours):
        yield ValueProblem((_TRACKERS, number, option), message)


def _given(content: Any) -> dict[str, Any]:
    """Give what the file says, without names that nothing stands after."""
    return {name: value for name, value in (content or {}).items() if value is not None}
