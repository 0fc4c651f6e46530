"""A run told once more, from its record."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.record.jsonl import EPOCHS, MEASURED, RUN, line_metrics, phase_file, read_lines
from jemtrack.train.events import (
    ArtifactSaved,
    BatchEnd,
    EpochEnd,
    Event,
    Measured,
    PhaseEnd,
    PhaseStart,
    Position,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.train.handlers import Tracker

Told = tuple[int, int, Event]  # the step and, among events of a step, the place


def replay(folder: Path, trackers: Iterable[Tracker]) -> None:
    """Tell the trackers the run whose record lies in `folder`, as if in one session; close them.

    Left out are what a divergence made void, starts of epochs and batches, and seconds. What was
    not finite comes as NaN.

    Raises:
        InputError: when there is no record.
    """
    events = [*recorded_events(folder)]
    for tracker in trackers:
        try:
            for event in events:
                tracker(event)
        finally:
            tracker.close()


def run_folder(folder: Path) -> Path:
    """Give the folder of the run whose record lies in `folder`: where its trackers wrote.

    Raises:
        InputError: when there is no record.
    """
    start = next(recorded_events(folder))
    assert isinstance(start, RunStart)
    return Path(start.parameters.get("params", {}).get("save_dir", "experiment")) / start.name


def recorded_events(folder: Path) -> Iterator[Event]:
    """Give the events of the run whose record lies in `folder`.

    Raises:
        InputError: when there is no record.
    """
    run = [*read_lines(folder / RUN)]
    starts = _of(run, "run_start")
    if not starts:
        raise InputError(f"{folder} must hold the record of a run, but {RUN} tells of none")
    start, end = starts[-1], run[-1]
    yield RunStart(start["name"], start["parameters"], start["run_id"], start["session_id"])
    phases = {line["name"]: line for line in _of(run, "phase_start")}
    told = [*_epochs(folder, phases), *_measured(folder)]
    for line in phases.values():
        told += _phase(folder, line, [end for end in _of(run, "phase_end") if _same(end, line)])
    yield from (event for _, _, event in sorted(told, key=lambda entry: entry[:2]))
    yield from (ArtifactSaved(Path(line["path"]), line["kind"]) for line in _of(run, "artifact"))
    if end["event"] == "run_end":
        yield RunEnd(Status(end["status"]), line_metrics(end))


def _phase(folder: Path, start: dict[str, Any], ends: list[dict[str, Any]]) -> Iterator[Told]:
    number, name = start["position"]["phase"], start["name"]
    batches = [*read_lines(folder / phase_file(name))]
    if not batches:
        return
    sizes = start["n_phases"], start["n_epochs"], start["n_batches"]
    yield batches[0]["global_step"], 0, PhaseStart(Position(number), name, *sizes)
    for line in batches:
        position = Position(number, line["epoch"] - 1, line["batch"])
        step = line["global_step"]
        yield step, 1, BatchEnd(position, line_metrics(line), step)
    for line in ends[-1:]:
        position = Position(**line["position"])
        event = PhaseEnd(position, name, line["reason"], Status(line["status"]))
        yield batches[-1]["global_step"], 4, event


def _epochs(folder: Path, phases: dict[str, dict[str, Any]]) -> Iterator[Told]:
    before: dict[str, int] = {}  # epochs of the run before each phase
    for line in read_lines(folder / EPOCHS):
        epoch, step, phase = line["epoch"], line["global_step"], line["phase"]
        within = epoch - before.setdefault(phase, epoch - 1)
        position = Position(phases[phase]["position"]["phase"], within)
        yield step, 2, EpochEnd(position, line_metrics(line), epoch, step)


def _measured(folder: Path) -> Iterator[Told]:
    for line in read_lines(folder / MEASURED):
        yield line["global_step"], 3, Measured(line_metrics(line), line["global_step"])


def _of(run: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in run if line["event"] == event]


def _same(end: dict[str, Any], start: dict[str, Any]) -> bool:
    return bool(end["name"] == start["name"])
