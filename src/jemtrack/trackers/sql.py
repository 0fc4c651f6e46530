"""Runs in a SQL database of one's own."""

import math
from typing import TYPE_CHECKING, Any

from jemtrack.record.paths import DatabaseUrl
from jemtrack.train.components import component, load_extra
from jemtrack.train.events import (
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
from jemtrack.train.handlers import Tracker

if TYPE_CHECKING:
    from jemtrack.trackers.database.store import SqlStore


@component("sql")
class SqlDatabase(Tracker):
    """Writes a run into the tables run, session, parameter, metric and artifact.

    An epoch is one transaction. A metric's level is `batch` or `measured` (its step is the
    optimization step), `epoch` (the epoch) or `run` (0); NULL stands for a value that is not
    finite.
    """

    url: str = DatabaseUrl(str, "SQLAlchemy's URL of the database", default="sqlite:///runs.db")

    def _post_init_(self) -> None:
        store = load_extra("sql", "jemtrack.trackers.database.store")
        self._store: SqlStore = store.SqlStore(self.url)
        self._running = False
        self._pending: dict[tuple[str, int, str], float | None] = {}

    def __call__(self, event: Event) -> None:
        """Write an epoch's rows at its end, and what stands for itself at once."""
        match event:
            case BatchEnd(status=Status.SUCCESS):
                self._take("batch", event.step, event.metrics)
            case Measured():
                self._take("measured", event.step, event.metrics)
            case EpochEnd(status=Status.SUCCESS):
                self._take("epoch", event.epoch, event.metrics)
                self._write()
            case RunStart():
                self._store.start(event)
                self._running = True
            case Diverged():
                # What waits is written first, so that one rule says what is void.
                self._write()
                self._store.void(event.step, event.epoch)
            case ArtifactSaved():
                self._store.add_artifact(event.path, event.kind)
            case RunEnd():
                self._take("run", 0, event.metrics)
                self._end(event.status)

    def state_dict(self) -> dict[str, Any]:
        """Write what waits: what a checkpoint holds does not happen again."""
        self._write()
        return {}

    def close(self) -> None:
        """Let go of the database; the run has failed where nothing else was said."""
        try:
            if self._running:
                self._end(Status.FAILED)
        finally:
            self._store.close()

    def _take(self, level: str, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self._pending[level, step, name] = float(value) if math.isfinite(value) else None

    def _write(self) -> None:
        if self._running:
            self._store.write(self._pending)
        self._pending = {}

    def _end(self, status: Status) -> None:
        self._write()
        self._store.end(status)
        self._running = False
