"""The record of a run: JSON lines from which the view of any other tracker can be made again."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from jemtrack.events.events import (
    ArtifactSaved,
    BatchEnd,
    Diverged,
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
from jemtrack.events.handlers import Recorder
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import component
from jemtrack.shared.plain import plain

_ENCODER = json.JSONEncoder(allow_nan=False, default=float)


class LineFile:
    """Appends objects to the file at `path`, once it has cut off a line that a kill has torn."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            cut_to(path, path.read_bytes().rfind(b"\n") + 1)
        # Unbuffered: a line is one write, which the system has as a whole or not at all.
        self._file = path.open("ab", buffering=0)

    def write(self, entry: dict[str, Any]) -> None:
        """Append `entry`; numbers that are not finite become null, which every reader takes.

        Raises:
            OSError: if the disk is full; the file then ends where it did before.
        """
        line = encode(entry)
        if (written := self._file.write(line)) != len(line):
            self._file.truncate(self._file.tell() - (written or 0))
            raise OSError(f"{self._file.name}: the disk is full")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def encode(entry: dict[str, Any]) -> bytes:
    """Format `entry` as a line of JSON, with null for numbers that are not finite."""
    try:
        text = _ENCODER.encode(entry)
    except ValueError:
        text = _ENCODER.encode(_with_nulls(entry))
    return text.encode() + b"\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the whole lines of a file that may be missing, or grow meanwhile."""
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)


def cut_after(path: Path, key: str, last: int) -> None:
    """Cut the file after its last line whose `key` is at most `last`; remove an empty file."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        if json.loads(content[start:end])[key] <= last:
            break
        end = start
    cut_to(path, end)


def cut_to(path: Path, size: int) -> None:
    """Cut the file to at most `size` bytes; remove an empty file."""
    if size == 0:
        path.unlink()
    elif size < path.stat().st_size:
        with path.open("rb+") as file:
            file.truncate(size)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


RUN, EPOCHS, MEASURED = "run.jsonl", "epochs.jsonl", "measured.jsonl"

# The events of `run.jsonl`. A line holds the fields of its event, `step` as `global_step`.
_RUN_EVENTS: dict[type[Event], str] = {
    RunStart: "run_start",
    PhaseStart: "phase_start",
    PhaseEnd: "phase_end",
    Diverged: "diverged",
    ArtifactSaved: "artifact",
    RunEnd: "run_end",
}
_KEYS = {"step": "global_step"}

E = TypeVar("E", bound=Event)


def event_to_line(event: Event) -> dict[str, Any]:
    """Return the object that stands for an event of `run.jsonl`."""
    line: dict[str, Any] = {"event": _RUN_EVENTS[type(event)]}
    for each in fields(event):
        value = getattr(event, each.name)
        if isinstance(value, Position):
            value = asdict(value)
        elif isinstance(value, Mapping):
            value = plain(value) if each.name == "parameters" else {**value}
        line[_KEYS.get(each.name, each.name)] = str(value) if isinstance(value, Path) else value
    return line


def event_from_line(kind: type[E], line: Mapping[str, Any], **known: Any) -> E:
    """Rebuild an event from its line; `known` are fields that the line lacks or has otherwise."""
    for each in fields(kind):
        key = _KEYS.get(each.name, each.name)
        if each.name not in known and key in line:
            known[each.name] = _DECODERS.get(each.name, lambda value: value)(line[key])
    return kind(**known)


def _position(value: Mapping[str, int]) -> Position:
    return Position(**value)


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in metrics.items()}


_DECODERS: dict[str, Any] = {
    "position": _position,
    "back_to": _position,
    "metrics": _numbers,
    "losses": _numbers,
    "status": Status,
    "path": Path,
}


@component("jsonl")
class JsonLines(Recorder):
    """Writes the events of a run into files of `folder`, an object a line, as they happen.

    `run.jsonl` only grows: starts, ends, artifacts and divergences. `epochs.jsonl` and
    `<phase>.jsonl` hold each epoch and batch once, as it happened last, and `measured.jsonl` what
    was measured apart from them. Every line is valid JSON: a number that is not finite is null.
    """

    folder: str = RunPath(str, "the folder of the record", default="record")

    def _post_init_(self) -> None:
        self._files: dict[str, LineFile] = {}
        self._session = ""
        self._phase = ""
        self._sizes: dict[str, int] | None = None  # of the files at the last checkpoint

    def __call__(self, event: Event) -> None:
        """Write a line."""
        match event:
            case BatchEnd(status=Status.SUCCESS, position=at):
                name = phase_file(self._phase)
                self._write_metrics(name, event, epoch=at.epoch + 1, batch=at.batch)
            case EpochEnd(status=Status.SUCCESS):
                self._write_metrics(EPOCHS, event, phase=self._phase, epoch=event.epoch)
            case Measured():
                self._write_metrics(MEASURED, event)
            case RunStart():
                self._session = event.session_id
                self._void(event.step, event.epoch)
            case Diverged():
                self._void(event.step, event.epoch)
            case PhaseStart():
                self._phase = event.name
        if type(event) in _RUN_EVENTS:
            self._write(RUN, event_to_line(event))

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def state_dict(self) -> dict[str, Any]:
        """Return the length in bytes of each file, to which resuming from here cuts it."""
        self._sizes = {path.name: path.stat().st_size for path in self._metric_files()}
        return {"bytes": self._sizes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut off what was written since; remove the files that were created since."""
        self._sizes = state["bytes"]
        self._cut(self._sizes)

    def _metric_files(self) -> list[Path]:
        return [path for path in Path(self.folder).glob("*.jsonl") if path.name != RUN]

    def _void(self, step: int, epoch: int) -> None:
        """Cut off what was written of later steps and epochs, and since the last checkpoint.

        A run that starts anew finds nothing of another one, nor of itself before its first
        checkpoint.
        """
        self.close()
        if self._sizes is not None or not step:
            self._cut(self._sizes or {})
        for path in self._metric_files():
            if path.name == EPOCHS:
                cut_after(path, "epoch", epoch)
            else:
                cut_after(path, "global_step", step)

    def _cut(self, sizes: Mapping[str, int]) -> None:
        for path in self._metric_files():
            cut_to(path, sizes.get(path.name, 0))

    def _write_metrics(
        self, name: str, event: BatchEnd | EpochEnd | Measured, **keys: str | int
    ) -> None:
        self._write(name, {**keys, "global_step": event.step, "metrics": {**event.metrics}})

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        if name not in self._files:
            self._files[name] = LineFile(Path(self.folder) / name)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        self._files[name].write({"timestamp": now, "session_id": self._session, **entry})


Levels = dict[int, dict[str, float]]


@dataclass
class Record:
    """The metrics of a run: batches and `measured` by optimization step, epochs by epoch."""

    batch: Levels = field(default_factory=dict)
    epoch: Levels = field(default_factory=dict)
    measured: Levels = field(default_factory=dict)
    run: dict[str, float] = field(default_factory=dict)


def read_record(folder: Path) -> Record:
    """Read the metrics of the last run that `JsonLines` wrote into `folder`; null becomes NaN."""
    record = Record()
    for path in sorted(folder.glob("*.jsonl")):
        if path.name not in {RUN, EPOCHS, MEASURED}:
            record.batch |= _levels(path, "global_step")
    record.batch = dict(sorted(record.batch.items()))
    record.epoch = _levels(folder / EPOCHS, "epoch")
    record.measured = _levels(folder / MEASURED, "global_step")
    for line in read_lines(folder / RUN):
        if line["event"] in {"run_start", "run_end"}:
            record.run = _numbers(line.get("metrics", {}))
    return record


def phase_file(phase: str) -> str:
    """Return the name of the file that holds the batches of `phase`."""
    # A quoted name contains no "=", so no phase takes a file that has another use.
    name = f"{quote(phase, safe=' ')}.jsonl"
    return f"phase={name}" if name in {RUN, EPOCHS, MEASURED} else name


def _levels(path: Path, key: str) -> Levels:
    found: Levels = {}
    for line in read_lines(path):
        found.setdefault(line[key], {}).update(_numbers(line["metrics"]))
    return found
