"""Metrics as DVCLive keeps them: files that DVC shows as metrics and plots."""

import csv
from pathlib import Path
from typing import Any

from jemtrack.record.paths import RunPath
from jemtrack.record.plain import plain
from jemtrack.train.components import component, load_extra
from jemtrack.train.events import Diverged, EpochEnd, Event, RunEnd, RunStart, Status
from jemtrack.train.handlers import Tracker


@component("dvclive")
class DvcLive(Tracker):
    """Writes epochs as DVCLive's steps into `folder`; batches are not its matter.

    `plots/metrics/<metric>.tsv` holds a row an epoch, `metrics.json` the last values and, as
    `run.<metric>`, the run's, `params.yaml` the parameters. It touches no dvc.yaml and saves no
    experiment: that is for the pipeline to do.
    """

    folder: str = RunPath(str, "the folder of DVCLive's files", default="dvclive")

    def _post_init_(self) -> None:
        self._tool = load_extra("dvclive", "dvclive")
        self._live: Any = None

    def __call__(self, event: Event) -> None:
        """Log an epoch's metrics, the parameters or the run's metrics."""
        if isinstance(event, RunStart):
            self._start(event)
        elif isinstance(event, EpochEnd) and event.status == Status.SUCCESS:
            self._live.step = event.epoch
            for name, value in event.metrics.items():
                self._live.log_metric(name, value)
            self._live.make_summary()
        elif isinstance(event, Diverged):
            self._void(event.epoch)
        elif isinstance(event, RunEnd):
            for name, value in event.metrics.items():
                self._live.log_metric(f"run.{name}", value, plot=False)

    def close(self) -> None:
        """Write the summary for the last time."""
        if self._live:
            self._live.end()
            self._live = None

    def _start(self, event: RunStart) -> None:
        for name in ("metrics.json", "params.yaml"):  # made anew; a kill may have torn them
            (Path(self.folder) / name).unlink(missing_ok=True)
        self._live = self._tool.Live(
            self.folder, resume=event.epoch > 0, report=None, save_dvc_exp=False, dvcyaml=None
        )
        self._live.log_params(plain(event.parameters))
        if event.epoch:
            self._void(event.epoch)

    def _void(self, epoch: int) -> None:
        """Drop the rows of later epochs; the last one's values are the summary again."""
        summary: dict[str, float] = {}
        for path in Path(self._live.plots_dir).glob("metrics/*.tsv"):
            whole_lines = path.read_text().split("\n")[:-1]
            header, *rows = csv.reader(whole_lines, delimiter="\t")
            kept = [row for row in rows if int(row[0]) <= epoch]
            with path.open("w", newline="") as file:
                csv.writer(file, delimiter="\t", lineterminator="\n").writerows([header, *kept])
            if kept:
                summary[header[1]] = float(kept[-1][1])
        self._live.step = epoch
        self._live.summary = summary
        self._live.make_summary()
