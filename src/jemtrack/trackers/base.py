"""What the trackers of services share: a run as curves, each a metric's values by step."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from jemtrack.events.events import (
    ArtifactSaved,
    BatchEnd,
    Diverged,
    EpochEnd,
    Event,
    Measured,
    Metrics,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.events.handlers import Tracker

SHORT = 8  # digits of a run's id that tell it apart from others
GROUP = "JEMTRACK_GROUP"


class Level(StrEnum):
    """What a point belongs to, and with it what its step counts."""

    BATCH = "batch"  # optimization steps
    MEASURED = "measured"  # optimization steps
    EPOCH = "epoch"  # epochs of the whole run, from 1
    RUN = "run"  # always 0


class CurveTracker(Tracker):
    """Turns the events of a run into calls that the tool of a subclass understands.

    A subclass writes `begin` and `points`, and whatever else its tool can do. Between `begin` and
    `end`, which are called once each, `points` receives the metrics in order. A subclass that
    keeps points back writes them in `flush`: every two seconds, after each epoch, at the end.
    """

    every: int = 1  # batches between two points; 0: none. Subclasses make it an option.
    step = 0  # optimization steps so far, after a divergence those that count
    _running = False
    _status = Status.FAILED  # unless the end of the run says otherwise

    def begin(self, start: RunStart) -> None:
        """Open the run, or resume it after `start.step` and `start.epoch`.

        What an earlier session has stored of later steps and epochs comes again with equal values.
        """
        raise NotImplementedError

    def points(self, level: Level, step: int, metrics: Metrics) -> None:
        """Add a point to the curve of each metric."""
        raise NotImplementedError

    def void(self, step: int, epoch: int) -> None:
        """Take back the points of later steps and epochs: the training diverged there."""

    def artifact(self, path: Path, kind: str) -> None:
        """Keep a file of the run."""

    def flush(self) -> None:
        """Write out all points so far."""

    def end(self, status: Status) -> None:
        """Close the run, and let go of files and connections."""

    def __call__(self, event: Event) -> None:
        """Call the method that `event` is for."""
        self.step = getattr(event, "step", self.step)
        match event:
            case BatchEnd(status=Status.SUCCESS) if self.every and event.step % self.every == 0:
                self.points(Level.BATCH, event.step, event.metrics)
            case Measured():
                self.points(Level.MEASURED, event.step, event.metrics)
            case EpochEnd(status=Status.SUCCESS):
                self.points(Level.EPOCH, event.epoch, event.metrics)
                self.flush()
            case RunStart():
                self.begin(event)
                self._running = True
            case Diverged():
                self.void(event.step, event.epoch)
            case ArtifactSaved():
                self.artifact(event.path, event.kind)
            case RunEnd():
                self._status = event.status
                self.points(Level.RUN, 0, event.metrics)

    def state_dict(self) -> dict[str, Any]:
        """Write out all points: what was handed over before a checkpoint is not sent again."""
        if self._running:
            self.flush()
        return {}

    def close(self) -> None:
        """End the run; it has failed unless its end was told."""
        if self._running:
            self._running = False
            try:
                self.flush()
            finally:
                self.end(self._status)


def qualified(level: Level, metrics: Metrics) -> Iterator[tuple[str, float]]:
    """Name metrics for a tool that keeps all levels in one list, in groups: `batch/loss`.

    The metrics of epochs keep their names.
    """
    prefix = "" if level == Level.EPOCH else f"{level}/"
    return ((f"{prefix}{name}", value) for name, value in metrics.items())


def run_label(start: RunStart) -> str:
    """Name a run so that it can be told from others of its stage: `MaxEntropyL2 group-toms`.

    What follows the stage is the name of DVC's experiment, or the first digits of the run's id.
    """
    which = os.environ.get("DVC_EXP_NAME") or start.run_id[:SHORT]
    return f"{start.name.rpartition('/')[2]} {which}".strip()


def run_origin() -> dict[str, str]:
    """Return the `commit` that is checked out, and the `experiment` of DVC and its `baseline`."""
    command = ["git", "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run(command, capture_output=True, check=True, text=True, timeout=10)
        found = {
            "commit": commit.stdout.strip(),
            "experiment": os.environ.get("DVC_EXP_NAME", ""),
            "baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        }
        return {name: value for name, value in found.items() if value}
    return {}


def run_group() -> str:
    """Name what the runs of all stages of one `dvc repro` have in common; "" outside of DVC.

    It is GROUP of the environment, DVC's experiment, or else the process of DVC.
    """
    for name in (GROUP, "DVC_EXP_NAME"):
        if group := os.environ.get(name):
            return group
    if "DVC_STAGE" not in os.environ:
        return ""
    import psutil  # type: ignore[import-untyped]

    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().parents():
            # DVC gives this variable to the processes of a stage, and has none itself.
            if "DVC_STAGE" not in process.environ():
                started = datetime.fromtimestamp(process.create_time())
                return f"repro {started:%Y-%m-%d %H:%M:%S} {process.pid}"
    return ""
