"""Show a run to trackers once more, from its record."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.events.events import (
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
)
from jemtrack.events.handlers import EventHandler
from jemtrack.events.tracker_process import one_line
from jemtrack.record.jsonl import EPOCHS, MEASURED, RUN, event_from_line, phase_file, read_lines

Line = Mapping[str, Any]
Ordered = tuple[int, int, Event]  # the step, and the order among the events of a step


def replay(folder: Path, trackers: Iterable[EventHandler]) -> None:
    """Replay the run whose record is in `folder` as one session; close the trackers.

    What a divergence voided is left out, and so are starts of epochs and batches, and seconds.
    Values that were not finite are NaN. A tracker that fails does not keep the others from it.

    Raises:
        InputError: if there is no record, or with a line for each tracker that failed.
    """
    events = [*recorded_events(folder)]
    failures: list[tuple[str, Exception]] = []
    for tracker in trackers:
        try:
            with contextlib.closing(tracker):
                for event in events:
                    tracker(event)
        except Exception as error:
            failures.append((f"{type(tracker).__name__} failed: {one_line(error)}", error))
    if failures:
        raise InputError(
            "\n".join(f"{folder}: {problem}" for problem, _ in failures)
        ) from failures[0][1]


def run_folder(folder: Path) -> Path:
    """Return the folder of the run whose record is in `folder`: its trackers wrote there.

    Raises:
        InputError: if there is no record.
    """
    start = next(recorded_events(folder))
    assert isinstance(start, RunStart)
    return Path(start.parameters.get("params", {}).get("save_dir", "experiment")) / start.name


def recorded_events(folder: Path) -> Iterator[Event]:
    """Yield the events of the run whose record is in `folder`.

    Raises:
        InputError: if there is no record.
    """
    lines: dict[str, list[Line]] = {}
    last = ""
    for line in read_lines(folder / RUN):
        last = line["event"]
        lines.setdefault(last, []).append(line)
    if "run_start" not in lines:
        raise InputError(f"{folder} must hold the record of a run, but {RUN} has no start of one")
    yield event_from_line(RunStart, lines["run_start"][-1], position=Position(), epoch=0, step=0)
    starts, ends = (
        {line["name"]: line for line in lines.get(event, [])}  # the last one of each phase
        for event in ("phase_start", "phase_end")
    )
    events: list[Ordered] = [
        (line["global_step"], 3, event_from_line(Measured, line))
        for line in read_lines(folder / MEASURED)
    ]
    events += _epochs(folder, starts)
    for name, start in starts.items():
        events += _phase(folder, start, ends.get(name))
    yield from (event for _, _, event in sorted(events, key=lambda entry: entry[:2]))
    yield from (event_from_line(ArtifactSaved, line) for line in lines.get("artifact", []))
    if last == "run_end":
        yield event_from_line(RunEnd, lines[last][-1])


def _phase(folder: Path, start: Line, end: Line | None) -> Iterator[Ordered]:
    batches = [*read_lines(folder / phase_file(start["name"]))]
    if not batches:
        return
    number = start["position"]["phase"]
    first = event_from_line(PhaseStart, start, position=Position(number))
    yield batches[0]["global_step"], 0, first
    for line in batches:
        position = Position(number, line["epoch"] - 1, line["batch"])
        yield line["global_step"], 1, event_from_line(BatchEnd, line, position=position)
    if end:
        yield batches[-1]["global_step"], 4, event_from_line(PhaseEnd, end)


def _epochs(folder: Path, starts: Mapping[str, Line]) -> Iterator[Ordered]:
    before: dict[str, int] = {}  # epochs of the run before each phase
    for line in read_lines(folder / EPOCHS):
        epoch, phase = line["epoch"], line["phase"]
        within = epoch - before.setdefault(phase, epoch - 1)
        position = Position(starts[phase]["position"]["phase"], within)
        yield line["global_step"], 2, event_from_line(EpochEnd, line, position=position)
