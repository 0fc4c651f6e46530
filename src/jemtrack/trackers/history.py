"""A CSV of metrics: a row an epoch and a final row."""

import csv
from pathlib import Path
from typing import Any

from jemtrack.engine.components import Option, component
from jemtrack.engine.events import EpochEnd, Event, Metrics, RunEnd, Status
from jemtrack.engine.listeners import Listener

_WHOLE = {Status.SUCCESS, Status.STOPPED}


@component("history")
class HistoryCsv(Listener):
    """Writes `path` anew after every epoch, so that it can be read while training runs.

    Columns: `row` (epoch or final), `epoch` (of the whole run, counted from 1) and one for each
    metric. The final row holds the run's metrics where an epoch has the same, and the last
    epoch's else.
    """

    path: str = Option(str, "the CSV file to write")

    def _post_init_(self) -> None:
        self._rows: list[dict[str, str | float]] = []

    def __call__(self, event: Event) -> None:
        """Add a row at an epoch's and at the end of a run that was not broken off."""
        if isinstance(event, EpochEnd) and event.status == Status.SUCCESS:
            self._add("epoch", event.epoch, event.metrics)
        elif isinstance(event, RunEnd) and event.status in _WHOLE and self._rows:
            last = self._rows[-1]
            metrics = {name: float(last[name]) for name in last if name not in {"row", "epoch"}}
            self._add("final", int(last["epoch"]), {**metrics, **event.metrics})

    def state_dict(self) -> dict[str, Any]:
        """Give the rows so far."""
        return {"rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the rows that were written before."""
        self._rows = state["rows"]

    def _add(self, row: str, epoch: int, metrics: Metrics) -> None:
        self._rows.append({"row": row, "epoch": epoch, **metrics})
        columns = list(dict.fromkeys(name for entry in self._rows for name in entry))
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with Path(self.path).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
