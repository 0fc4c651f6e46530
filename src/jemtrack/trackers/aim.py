"""Runs for Aim."""

import logging
from pathlib import Path
from typing import Any

from jemtrack.events.events import Metrics, RunStart, Status
from jemtrack.record.paths import SharedPath
from jemtrack.shared.components import Option, component, load_extra
from jemtrack.shared.plain import plain
from jemtrack.trackers.base import CurveTracker, Level, run_label


@component("aim")
class Aim(CurveTracker):
    """Logs a run into the Aim repository in `folder`, and resumes it when training does.

    Metrics keep their names; Aim's context tells the `level`: batch, measured, epoch or run. Aim
    keeps the last value of each step, so that what is trained again takes the place of what was
    void.
    """

    folder: str = SharedPath(str, "the folder that gets the folder .aim", default=".")
    experiment: str = Option(str, "the experiment that gets the run", default="jemtrack")
    every: int = Option(int, "batches between two points; 0: epochs only", default=0, minimum=0)

    def _post_init_(self) -> None:
        self._tool = load_extra("aim", "aim")
        self._run: Any = None

    def begin(self, start: RunStart) -> None:
        """Create the run, or find it by its description, which holds the run's id."""
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        repo = self._tool.Repo(self.folder, init=not self._tool.Repo.exists(self.folder))
        runs = repo.structured_db.runs() if start.run_id else ()
        known = next((run.hash for run in runs if run.description == start.run_id), None)
        # Aim warns of taking over the lock that a kill has left; the training has its own.
        logging.getLogger("aim.sdk.lock_manager").setLevel(logging.ERROR)
        self._run = self._tool.Run(
            known,
            repo=repo,
            experiment=self.experiment,
            force_resume=known is not None,
            system_tracking_interval=None,
            log_system_params=False,
            capture_terminal_logs=False,
        )
        if known is None:  # a replay is outside of the experiment that gave the name
            self._run.name, self._run.description = run_label(start), start.run_id
        self._run["parameters"] = plain(start.parameters)

    def points(self, level: Level, step: int, metrics: Metrics) -> None:
        """Track each metric at its level."""
        for name, value in metrics.items():
            self._run.track(float(value), name=name, step=step, context={"level": str(level)})

    def artifact(self, path: Path, kind: str) -> None:
        """Note where the file is."""
        self._run["artifacts", path.name] = {"path": str(path), "kind": kind}

    def end(self, status: Status) -> None:
        """Note how the run ended, and close it."""
        self._run["status"] = str(status)
        self._run.close()
        self._run = None  # Aim's database stays locked as long as there is a reference
