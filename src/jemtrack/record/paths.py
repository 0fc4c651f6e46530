"""Where trackers write, for a configuration that serves many runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from jemtrack.errors import InputError
from jemtrack.events.handlers import EventHandler
from jemtrack.files import path_problem
from jemtrack.shared.components import Component, Option, build
from jemtrack.shared.global_state import global_state_kept


class RunPaths(NamedTuple):
    """The folder of a run and that of the project."""

    run: Path
    project: Path


class PlacedOption(Option):
    """An option that says where a tracker writes."""

    def location_problem(self, value: Any) -> str:
        """Explain why `value` is no path; "" if it is one, or has a default."""
        return "" if value is None else path_problem(value)

    def placed(self, value: str, paths: RunPaths) -> str:
        """Return the value of the option for one run."""
        raise NotImplementedError


class RunPath(PlacedOption):
    """A file or folder of one run alone."""

    def location_problem(self, value: Any) -> str:
        """Refuse a path out of the run's folder: what is there may be no tracker's to replace."""
        if problem := super().location_problem(value):
            return problem
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.anchor or ".." in path.parts:
                return f"must be a path in the folder that each run has of its own, got {value!r}"
        return ""

    def placed(self, value: str, paths: RunPaths) -> str:
        """Return the path in the folder of the run."""
        return str(paths.run / value)


class SharedPath(PlacedOption):
    """A folder that runs share."""

    def placed(self, value: str, paths: RunPaths) -> str:
        """Return the path in the project."""
        return str(paths.project / value)


class DatabaseUrl(PlacedOption):
    """A URL of a database that runs share; SQLite's file is in the project."""

    def placed(self, value: str, paths: RunPaths) -> str:
        """Return the URL, with the path of SQLite's file in the project."""
        scheme, joint, path = value.partition(":///")
        if not scheme.startswith("sqlite") or not joint or not path or path.startswith(":"):
            return value
        return f"{scheme}{joint}{paths.project / path}"


def placed_options(
    cls: type[Component], options: Mapping[str, Any], paths: RunPaths
) -> dict[str, Any]:
    """Return the options of a tracker for one run, with the default of where it writes."""
    where = {
        option.name: option.placed(options.get(option.name, option.default), paths)
        for option in _placed(cls)
    }
    return {**options, **where}


def build_tracker(entry: Mapping[str, Any], paths: RunPaths) -> EventHandler:
    """Build the tracker that an entry of a file describes, by `type` and options, for one run.

    `type` is the name of a registered class whose module was imported, or a dotted path.

    Raises:
        InputError: if there is no such tracker, an option does not fit or a package is missing.
    """
    options = dict(entry)
    name = options.pop("type")
    with global_state_kept():  # it may be code of the user's
        tracker = build(name, options, lambda cls, given: placed_options(cls, given, paths))
    if not isinstance(tracker, EventHandler):
        raise InputError(f"{name!r} must be a tracker: a subclass of Tracker")
    return tracker


def shared_places(
    trackers: Mapping[int, tuple[type[Component], Mapping[str, Any]]],
) -> Iterator[tuple[int, str, str]]:
    """Yield the trackers that write where another does: number, option, a sentence about it.

    `trackers` maps numbers from 0 to a class and its options.
    """
    seen: dict[tuple[Any, ...], int] = {}
    for number, (cls, options) in trackers.items():
        where = {option.name: options.get(option.name, option.default) for option in _placed(cls)}
        first = seen.setdefault((cls, *where.values()), number)
        if first != number and where:
            yield number, next(iter(where)), f"is where the {first + 1}. tracker writes already"


def _placed(cls: type[Component]) -> list[PlacedOption]:
    return [option for option in cls.options() if isinstance(option, PlacedOption)]
