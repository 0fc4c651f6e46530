"""What tells one session of a run from another."""

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

    SUCCESS = "success"  # all that was asked for was done
    STOPPED = "stopped"  # a callback saw that more training would not help
    FAILED = "failed"  # an exception ended it
    ABORTED = "aborted"  # a person or the cluster ended it


@dataclass(frozen=True, order=True)
class Position:
    """A place in a training: `batch` batches of `epoch` are done in the phase `phase`."""

    phase: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Event:
    """The base of all that can happen."""


@dataclass(frozen=True)
class RunStart(Event):
    """A run begins, or goes on.

    `run_id` stays the same when the run goes on in another process, `session_id` does not.
    `parameters` is all that was chosen. Training goes on at `position`, after `step`
    optimization steps and `epoch` whole epochs: what a tracker has kept of later ones will
    happen again, with equal values.
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
    """A phase begins, or goes on: number `position.phase` of `n_phases`, counted from 0.

    It takes at most `n_epochs` epochs, each of `n_batches` batches; 0 where nobody knows.
    """

    position: Position
    name: str
    n_phases: int
    n_epochs: int
    n_batches: int


@dataclass(frozen=True)
class EpochStart(Event):
    """An epoch begins, or goes on at `position.batch`."""

    position: Position


@dataclass(frozen=True)
class BatchStart(Event):
    """The batch after `position` begins."""

    position: Position


@dataclass(frozen=True)
class BatchEnd(Event):
    """A batch ended; `metrics` holds its losses before the update, none where it failed.

    `step` counts the optimization steps of the whole run, `seconds` is the time since the batch
    before it ended, trackers and the drawing of the batch included.
    """

    position: Position
    metrics: Metrics
    step: int
    seconds: float = 0.0
    status: Status = Status.SUCCESS


@dataclass(frozen=True)
class EpochEnd(Event):
    """An epoch ended; `metrics` holds its training means and, where due, validation.

    `epoch` counts the epochs of the whole run from 1 and is the step of these metrics;
    `position.epoch` counts within the phase.
    """

    position: Position
    metrics: Metrics
    epoch: int
    step: int
    status: Status = Status.SUCCESS


@dataclass(frozen=True)
class PhaseEnd(Event):
    """A phase ended; `reason` says why, in words."""

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
    """The loss was not finite or too large at `position`; training goes back to `back_to`.

    What was recorded of later steps than `step` and later epochs than `epoch` is void. `retry`
    counts the returns, and the learning rates are `lr_scale` times the chosen ones from here.
    """

    position: Position
    back_to: Position
    epoch: int
    step: int
    losses: Metrics
    retry: int
    lr_scale: float


@dataclass(frozen=True)
class ArtifactSaved(Event):
    """A file of the run was written: `kind` is weights, ..."""

    path: Path
    kind: str


@dataclass(frozen=True)
class Measured(Event):
    """Metrics apart from a batch's or an epoch's, such as learning rates or the memory in use."""

    metrics: Metrics
    step: int


def new_session() -> str:
    """Give a name by the time that no other session has, such as 20260131_235959_0a1b2c."""
    return time.strftime("%Y%m%d_%H%M%S") + f"_{uuid.uuid4().hex[:6]}"
