"""Metrics as DVCLive keeps them: files that DVC shows as metrics and plots."""

import csv
from pathlib import Path
from typing import Any

from jemtrack.events.events import Metrics, RunStart, Status
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import component, load_extra
from jemtrack.shared.plain import plain
from jemtrack.trackers.base import CurveTracker, Level


@component("dvclive")
class DvcLive(CurveTracker):
    """Writes epochs as DVCLive's steps into `folder`; batches are left out.

    `plots/metrics/<metric>.tsv` holds a row for each epoch, `metrics.json` the last values and,
    as `run.<metric>`, those of the run, `params.yaml` the parameters. No dvc.yaml is touched and
    no experiment is saved: the pipeline does that.
    """

    folder: str = RunPath(str, "the folder of DVCLive's files", default="dvclive")

    def _post_init_(self) -> None:
        self._tool = load_extra("dvclive", "dvclive")
        self._live: Any = None

    def begin(self, start: RunStart) -> None:
        """Open the folder and write the parameters; keep the epochs up to `start.epoch`."""
        for name in ("metrics.json", "params.yaml"):  # rewritten; a kill may have torn them
            (Path(self.folder) / name).unlink(missing_ok=True)
        self._live = self._tool.Live(
            self.folder, resume=start.epoch > 0, report=None, save_dvc_exp=False, dvcyaml=None
        )
        self._live.log_params(plain(start.parameters))
        if start.epoch:
            self.void(start.step, start.epoch)

    def points(self, level: Level, step: int, metrics: Metrics) -> None:
        """Log the metrics of an epoch or of the run."""
        if level == Level.EPOCH:
            self._live.step = step
            for name, value in metrics.items():
                self._live.log_metric(name, value)
            self._live.make_summary()
        elif level == Level.RUN:
            for name, value in metrics.items():
                self._live.log_metric(f"run.{name}", value, plot=False)

    def void(self, step: int, epoch: int) -> None:
        """Drop the rows of later epochs and restore the summary of the last one kept."""
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

    def end(self, status: Status) -> None:
        """Write the summary for the last time."""
        self._live.end()
