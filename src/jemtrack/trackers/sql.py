"""Runs in a SQL database of the user's."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from jemtrack.events.events import Metrics, RunStart, Status
from jemtrack.record.paths import DatabaseUrl
from jemtrack.shared.components import component, load_extra
from jemtrack.trackers.base import CurveTracker, Level

if TYPE_CHECKING:
    from jemtrack.trackers.database.store import SqlStore


@component("sql")
class SqlDatabase(CurveTracker):
    """Writes a run into the tables run, session, parameter, metric and artifact.

    Two seconds or so are one transaction. The level of a metric is `batch` or `measured` (its step
    is the optimization step), `epoch` (the epoch) or `run` (0); a value that is not finite is NULL.
    """

    url: str = DatabaseUrl(str, "SQLAlchemy's URL of the database", default="sqlite:///runs.db")

    def _post_init_(self) -> None:
        store = load_extra("sql", "jemtrack.trackers.database.store")
        self._store: SqlStore = store.SqlStore(self.url)
        self._pending: dict[tuple[str, int, str], float | None] = {}

    def begin(self, start: RunStart) -> None:
        """Create the tables if needed and the row of the run."""
        self._store.start(start)

    def points(self, level: Level, step: int, metrics: Metrics) -> None:
        """Note the values; a later one for the same level, step and name takes their place."""
        for name, value in metrics.items():
            self._pending[level, step, name] = float(value) if math.isfinite(value) else None

    def void(self, step: int, epoch: int) -> None:
        """Delete the values of later steps and epochs."""
        self.flush()  # first, so that one rule in the database says what is void
        self._store.void(step, epoch)

    def artifact(self, path: Path, kind: str) -> None:
        """Note the file."""
        self._store.add_artifact(path, kind)

    def flush(self) -> None:
        """Write what waits, in one transaction."""
        self._store.write(self._pending)
        self._pending = {}

    def end(self, status: Status) -> None:
        """Note how the run ended, and disconnect."""
        try:
            self._store.end(status)
        finally:
            self._store.close()
