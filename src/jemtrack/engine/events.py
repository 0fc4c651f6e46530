"""What happens in a training, as values that listeners read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Metrics = Mapping[str, float]


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
    """A run begins; `parameters` is all that was chosen for it."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class PhaseStart(Event):
    """A phase of `n_epochs` epochs, each of `n_batches` batches, begins."""

    position: Position
    name: str
    n_epochs: int
    n_batches: int


@dataclass(frozen=True)
class EpochStart(Event):
    """An epoch begins, or goes on at `position.batch`."""

    position: Position


@dataclass(frozen=True)
class BatchEnd(Event):
    """The weights were updated on a batch; `metrics` holds its losses before the update."""

    position: Position
    metrics: Metrics


@dataclass(frozen=True)
class EpochEnd(Event):
    """An epoch ended; `metrics` holds its training means and, where due, validation."""

    position: Position
    metrics: Metrics


@dataclass(frozen=True)
class PhaseEnd(Event):
    """A phase ended."""

    position: Position
    name: str


@dataclass(frozen=True)
class RunEnd(Event):
    """A run ended; `status` is success or failed, `metrics` are those of the whole run."""

    status: str
    metrics: Metrics
