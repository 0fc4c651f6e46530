"""A CSV file of metrics: a row for each epoch."""

import csv
from pathlib import Path
from typing import Any

from jemtrack.events.events import Diverged, EpochEnd, Event, RunStart, Status
from jemtrack.events.handlers import Recorder
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import component


@component("history")
class HistoryCsv(Recorder):
    """Rewrites `path` after every epoch, so that it can be read while training runs.

    Columns: `epoch` (of the whole run, from 1) and one for each metric of an epoch.
    """

    path: str = RunPath(str, "the CSV file to write", default="history.csv")

    def _post_init_(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        """Add a row after an epoch; remove those that a resumed or repeated run makes again."""
        if isinstance(event, RunStart | Diverged):
            self._rows = [row for row in self._rows if row["epoch"] <= event.epoch]
            self._write()  # a resumed run may have no epoch left, and the file may be gone
        elif isinstance(event, EpochEnd) and event.status == Status.SUCCESS:
            self._rows.append({"epoch": event.epoch, **event.metrics})
            self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": [{**row} for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore those rows, even if the file is gone."""
        self._rows = [{**row} for row in state["rows"]]

    def files(self) -> list[Path]:
        """List the file, if a row was written."""
        return [Path(self.path)] if self._rows else []

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with Path(self.path).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns or ["epoch"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
