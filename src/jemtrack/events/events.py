"""The events of a run, as values, and the identity of a run's sessions.

A run is one training from start to end; a session is the part of it that one process executes. A
run that is killed and resumed has several sessions.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

Metrics = Mapping[str, float]


class Status(StrEnum):
    """How a run, or a part of one, ended."""

    SUCCESS = "success"  # completed as configured
    STOPPED = "stopped"  # ended early by a callback
    FAILED = "failed"  # ended by an exception
    ABORTED = "aborted"  # ended by a signal: Ctrl-C or the cluster


@dataclass(frozen=True, order=True)
class Position:
    """A position in a training, all counted from 0: `batch` batches of `epoch` are done."""

    phase: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Event:
    """The base class of all events."""


@dataclass(frozen=True)
class RunStart(Event):
    """A run starts, or resumes after `epoch` whole epochs and `step` optimization steps.

    What a tracker has recorded after `position` will happen again, with equal values. `run_id`
    identifies the run in all of its sessions, `session_id` this session.
    """

    name: str
    parameters: Mapping[str, Any]
    run_id: str = ""
    session_id: str = ""
    position: Position = Position()
    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class PhaseStart(Event):
    """A phase starts or resumes: number `position.phase`, from 0, of `n_phases`.

    It has at most `n_epochs` epochs of `n_batches` batches each; 0 if the number is unknown.
    """

    position: Position
    name: str
    n_phases: int
    n_epochs: int
    n_batches: int


@dataclass(frozen=True)
class EpochStart(Event):
    """An epoch starts, or resumes at `position.batch`."""

    position: Position


@dataclass(frozen=True)
class BatchStart(Event):
    """The batch after `position` starts."""

    position: Position


@dataclass(frozen=True)
class BatchEnd(Event):
    """A batch ended; `metrics` are its losses before the update, empty if it failed.

    `step` counts the optimization steps of the whole run. `seconds` is the time since the end of
    the previous batch, which includes drawing the batch and the trackers.
    """

    position: Position
    metrics: Metrics
    step: int
    seconds: float = 0.0
    status: Status = Status.SUCCESS


@dataclass(frozen=True)
class EpochEnd(Event):
    """An epoch ended; `metrics` are its training means and, if it was due, its validation.

    `epoch` counts the epochs of the whole run from 1, and trackers use it as the step of these
    metrics; `position.epoch` counts within the phase.
    """

    position: Position
    metrics: Metrics
    epoch: int
    step: int
    status: Status = Status.SUCCESS


@dataclass(frozen=True)
class PhaseEnd(Event):
    """A phase ended, for the `reason`, a sentence."""

    position: Position
    name: str
    reason: str = ""
    status: Status = Status.SUCCESS


@dataclass(frozen=True)
class RunEnd(Event):
    """A run ended; `metrics` are those of the whole run."""

    status: Status
    metrics: Metrics


@dataclass(frozen=True)
class Diverged(Event):
    """The loss diverged at `position`: not finite or too large; training returns to `back_to`.

    Records of steps after `step` and of epochs after `epoch` are void. `retry` counts the
    returns; from here, the learning rates are multiplied by `lr_scale`.
    """

    position: Position
    back_to: Position
    epoch: int
    step: int
    losses: Metrics
    retry: int
    lr_scale: float


MODEL = "model"  # the kind of the file with the trained model


@dataclass(frozen=True)
class ArtifactSaved(Event):
    """A file of the run was written; `kind` is what it contains, such as `weights`."""

    path: Path
    kind: str


@dataclass(frozen=True)
class Measured(Event):
    """Metrics that belong to no batch or epoch, such as learning rates or the memory in use."""

    metrics: Metrics
    step: int


def new_session() -> str:
    """Create a unique session id that starts with the time, such as 20260131_235959_0a1b2c."""
    return time.strftime("%Y%m%d_%H%M%S") + f"_{uuid.uuid4().hex[:6]}"
