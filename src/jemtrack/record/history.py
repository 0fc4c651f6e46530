"""A CSV file of metrics: a row for each epoch and a final row."""

import csv
from pathlib import Path
from typing import Any

from jemtrack.events.events import Diverged, EpochEnd, Event, Metrics, RunEnd, RunStart, Status
from jemtrack.events.handlers import Recorder
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import component

_WHOLE = {Status.SUCCESS, Status.STOPPED}


@component("history")
class HistoryCsv(Recorder):
    """Rewrites `path` after every epoch, so that it can be read while training runs.

    Columns: `row` (epoch or final), `epoch` (of the whole run, from 1) and one for each metric of
    an epoch. Only a run that succeeded or was stopped has a final row: the metrics of the run and,
    where it has none of that name, those of the last epoch.
    """

    path: str = RunPath(str, "the CSV file to write", default="history.csv")

    def _post_init_(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        """Add a row after an epoch and after the run; remove rows that are void."""
        if isinstance(event, RunStart):
            self._void(event.epoch)
        elif isinstance(event, Diverged):
            self._void(event.epoch)
            self._write()
        elif isinstance(event, EpochEnd) and event.status == Status.SUCCESS:
            self._add("epoch", event.epoch, event.metrics)
        elif isinstance(event, RunEnd) and event.status in _WHOLE and self._rows:
            last = {**self._rows[-1]}
            epoch = last.pop("epoch")
            del last["row"]
            self._add("final", epoch, {**last, **event.metrics})

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": [{**row} for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore those rows, even if the file is gone."""
        self._rows = [{**row} for row in state["rows"]]

    def files(self) -> list[Path]:
        """List the file, if a row was written."""
        return [Path(self.path)] if self._rows else []

    def _void(self, epoch: int) -> None:
        self._rows = [row for row in self._rows if row["epoch"] <= epoch and row["row"] == "epoch"]

    def _add(self, row: str, epoch: int, metrics: Metrics) -> None:
        self._rows.append({"row": row, "epoch": epoch, **metrics})
        self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with Path(self.path).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns or ["row", "epoch"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
