"""The record of a run: JSON lines from which all that other trackers show can be made again."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jemtrack.record.paths import RunPath
from jemtrack.record.plain import plain
from jemtrack.train.components import component
from jemtrack.train.events import (
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
from jemtrack.train.handlers import Tracker

_ENCODER = json.JSONEncoder(allow_nan=False, default=float)


class LineFile:
    """Appends objects to the file at `path`; what a kill may have torn off is cut away first."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            cut_to(path, path.read_bytes().rfind(b"\n") + 1)
        # Unbuffered: a line is one write, which the system either has or has not.
        self._file = path.open("ab", buffering=0)

    def write(self, entry: dict[str, Any]) -> None:
        """Append `entry`; a number that is not finite becomes null, for every reader's sake.

        Raises:
            OSError: when the disk is full; the file then ends where it did before.
        """
        line = encode(entry)
        if (written := self._file.write(line)) != len(line):
            self._file.truncate(self._file.tell() - (written or 0))
            raise OSError(f"{self._file.name}: the disk is full")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def encode(entry: dict[str, Any]) -> bytes:
    """Write `entry` as a line of JSON, with null for numbers that are not finite."""
    try:
        text = _ENCODER.encode(entry)
    except ValueError:
        text = _ENCODER.encode(_with_nulls(entry))
    return text.encode() + b"\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the whole lines of a file that may be missing, or be written at this moment."""
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)


def cut_after(path: Path, key: str, last: int) -> None:
    """Cut the file after its last line whose `key` is at most `last`; remove it if none is."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        if json.loads(content[start:end])[key] <= last:
            break
        end = start
    cut_to(path, end)


def cut_to(path: Path, size: int) -> None:
    """Cut the file to at most `size` bytes; remove it where nothing is left."""
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
Levels = dict[int, dict[str, float]]


@component("jsonl")
class JsonLines(Tracker):
    """Writes a run's events into files of `folder`, an object a line, as they happen.

    `run.jsonl` is only ever added to: starts, ends, artifacts and divergences. Of each epoch
    and batch, however often it happened, its last time alone stands in `epochs.jsonl` and
    `<phase>.jsonl`; `measured.jsonl` holds what was measured apart from them. Every line is
    valid JSON: null stands for a number that is not finite.
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
            case BatchEnd(status=Status.SUCCESS):
                self._write(phase_file(self._phase), _batch(event))
            case EpochEnd(status=Status.SUCCESS):
                self._write(EPOCHS, {"phase": self._phase, **_epoch(event)})
            case Measured():
                self._write(MEASURED, {"global_step": event.step, "metrics": {**event.metrics}})
            case RunStart():
                self._session = event.session_id
                self._void(event.step, event.epoch)
                self._write(RUN, _run_start(event))
            case Diverged():
                self._void(event.step, event.epoch)
                self._write(RUN, _diverged(event))
            case PhaseStart():
                self._phase = event.name
                self._write(RUN, _phase_start(event))
            case PhaseEnd() | ArtifactSaved() | RunEnd():
                self._write(RUN, _other(event))

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def state_dict(self) -> dict[str, Any]:
        """Give the length in bytes of each file that a return to here is to cut."""
        self._sizes = {path.name: path.stat().st_size for path in self._that_can_be_cut()}
        return {"bytes": self._sizes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut off what was written since; remove the files that were begun since."""
        self._sizes = state["bytes"]
        self._cut(self._sizes)

    def _that_can_be_cut(self) -> list[Path]:
        return [path for path in Path(self.folder).glob("*.jsonl") if path.name != RUN]

    def _void(self, step: int, epoch: int) -> None:
        """Cut off what was written of later steps and epochs, and since the last checkpoint.

        At the start of a run nothing is left of another one, or of one that never came to a
        checkpoint.
        """
        self.close()
        if self._sizes is not None or not step:
            self._cut(self._sizes or {})
        for path in self._that_can_be_cut():
            if path.name == EPOCHS:
                cut_after(path, "epoch", epoch)
            else:
                cut_after(path, "global_step", step)

    def _cut(self, sizes: Mapping[str, int]) -> None:
        for path in self._that_can_be_cut():
            cut_to(path, sizes.get(path.name, 0))

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        if name not in self._files:
            self._files[name] = LineFile(Path(self.folder) / name)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        self._files[name].write({"timestamp": now, "session_id": self._session, **entry})


@dataclass
class Record:
    """A run's metrics: of batches and `measured` by optimization step, of epochs by epoch."""

    batch: Levels = field(default_factory=dict)
    epoch: Levels = field(default_factory=dict)
    measured: Levels = field(default_factory=dict)
    run: dict[str, float] = field(default_factory=dict)


def read_record(folder: Path) -> Record:
    """Read the metrics of the last run that `JsonLines` wrote into `folder`; NaN is for null."""
    record = Record()
    for path in sorted(folder.glob("*.jsonl")):
        if path.name not in {RUN, EPOCHS, MEASURED}:
            record.batch |= _levels(path, "global_step")
    record.batch = dict(sorted(record.batch.items()))
    record.epoch = _levels(folder / EPOCHS, "epoch")
    record.measured = _levels(folder / MEASURED, "global_step")
    for line in read_lines(folder / RUN):
        if line["event"] in {"run_start", "run_end"}:
            record.run = line_metrics(line)
    return record


def phase_file(phase: str) -> str:
    """Give the name of the file that holds the batches of `phase`."""
    # A quoted name has no "=" of its own, so that no phase takes a file that has other uses.
    name = f"{quote(phase, safe=' ')}.jsonl"
    return f"phase={name}" if name in {RUN, EPOCHS, MEASURED} else name


def _levels(path: Path, key: str) -> Levels:
    found: Levels = {}
    for line in read_lines(path):
        found.setdefault(line[key], {}).update(line_metrics(line))
    return found


def line_metrics(line: dict[str, Any]) -> dict[str, float]:
    """Give the metrics of a line; NaN is for null."""
    return {
        name: math.nan if value is None else value
        for name, value in line.get("metrics", {}).items()
    }


def _batch(event: BatchEnd) -> dict[str, Any]:
    return {
        "epoch": event.position.epoch + 1,
        "batch": event.position.batch,
        "global_step": event.step,
        "metrics": {**event.metrics},
    }


def _epoch(event: EpochEnd) -> dict[str, Any]:
    return {"epoch": event.epoch, "global_step": event.step, "metrics": {**event.metrics}}


def _run_start(event: RunStart) -> dict[str, Any]:
    return {
        "event": "run_start",
        "name": event.name,
        "run_id": event.run_id,
        "position": _place(event.position),
        "epoch": event.epoch,
        "global_step": event.step,
        "parameters": plain(event.parameters),
    }


def _phase_start(event: PhaseStart) -> dict[str, Any]:
    sizes = {"n_phases": event.n_phases, "n_epochs": event.n_epochs, "n_batches": event.n_batches}
    return {
        "event": "phase_start",
        "name": event.name,
        "position": _place(event.position),
        **sizes,
    }


def _diverged(event: Diverged) -> dict[str, Any]:
    return {
        "event": "diverged",
        "position": _place(event.position),
        "back_to": _place(event.back_to),
        "epoch": event.epoch,
        "global_step": event.step,
        "retry": event.retry,
        "lr_scale": event.lr_scale,
        "losses": {**event.losses},
    }


def _other(event: PhaseEnd | ArtifactSaved | RunEnd) -> dict[str, Any]:
    if isinstance(event, ArtifactSaved):
        return {"event": "artifact", "path": str(event.path), "kind": event.kind}
    if isinstance(event, RunEnd):
        return {"event": "run_end", "status": event.status, "metrics": {**event.metrics}}
    return {
        "event": "phase_end",
        "name": event.name,
        "position": _place(event.position),
        "reason": event.reason,
        "status": event.status,
    }


def _place(position: Position) -> dict[str, int]:
    return {"phase": position.phase, "epoch": position.epoch, "batch": position.batch}
