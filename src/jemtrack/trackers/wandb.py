"""Runs for Weights & Biases."""

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from jemtrack.events.events import Metrics, RunStart, Status
from jemtrack.record.paths import SharedPath
from jemtrack.shared.components import Option, component, load_extra
from jemtrack.shared.plain import plain
from jemtrack.trackers.base import CurveTracker, Level, qualified, run_group, run_label

# W&B writes to the disk at this interval; a kill takes what came after.
_FLUSH_SECONDS = 1.0
_AGAIN_SECONDS = 10.0  # what was logged within these before a checkpoint is repeated after a kill


@component("wandb")
class WeightsAndBiases(CurveTracker):
    """Logs a run; a session that resumes it has the same id, as `wandb sync` expects.

    Epochs' metrics keep their names, by `epoch`; the others are `batch/<metric>` and
    `measured/<metric>` by `step`, those of the run are `run/<metric>` in the summary. W&B's own
    step is the optimization step. W&B refuses to go back, so it keeps one of the equal values
    that a later session repeats. It cannot take back what is void after a divergence: there, the
    last value of an epoch or step is the valid one. The runs of the stages of one `dvc repro` are
    a group.
    """

    project: str = Option(str, "the project at W&B", default="jemtrack")
    mode: str = Option(
        str, "where the run goes first", default="offline", choices=("offline", "online")
    )
    folder: str = SharedPath(str, "the folder that gets the folder wandb", default=".")
    every: int = Option(int, "batches between two points; 0: epochs only", default=0, minimum=0)

    def _post_init_(self) -> None:
        self._tool = load_extra("wandb", "wandb")
        self._run: Any = None
        self._defined: set[str] = set()
        self._last, self._shift = 0, 0  # W&B's last step, and how far it is ahead of ours
        self._recent: deque[tuple[float, int, dict[str, float]]] = deque()

    def begin(self, start: RunStart) -> None:
        """Start or resume the run; log again what a killed session may have lost."""
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        _forget_service_of_others()
        self._run = self._tool.init(
            project=self.project,
            name=run_label(start),
            group=run_group() or None,
            job_type=start.name.rpartition("/")[2],
            id=start.run_id or None,
            mode=self.mode,
            resume="allow",
            dir=self.folder,
            config=plain(start.parameters),
            settings=self._settings(),
        )
        for _, step, row in self._recent:
            self._send(row, step)

    def points(self, level: Level, step: int, metrics: Metrics) -> None:
        """Log a row, or the summary of the run."""
        values = dict(qualified(level, metrics))
        if level == Level.RUN:
            self._run.summary.update(values)
            return
        axis = "epoch" if level == Level.EPOCH else "step"
        row: dict[str, float] = {axis: step, **values}
        self._last = self.step + self._shift
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - _AGAIN_SECONDS:
            self._recent.popleft()
        self._recent.append((now, self._last, row))
        self._send(row, self._last)

    def void(self, step: int, epoch: int) -> None:
        """Move W&B's steps on: it takes nothing back."""
        self._shift = max(self._shift, self._last - step)

    def artifact(self, path: Path, kind: str) -> None:
        """Log the file as an artifact of its kind."""
        artifact = self._tool.Artifact(f"{kind}-{self._run.id}", type=kind)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def end(self, status: Status) -> None:
        """Finish the run, marked as failed unless it succeeded or was stopped."""
        self._run.summary.update({"status": str(status)})
        self._run.finish(exit_code=0 if status in {Status.SUCCESS, Status.STOPPED} else 1)

    def state_dict(self) -> dict[str, Any]:
        """Return how far W&B's steps are ahead, and rows that may not be on the disk yet."""
        first = time.monotonic() - _AGAIN_SECONDS
        recent = [[step, row] for logged, step, row in self._recent if logged >= first]
        return {"shift": self._shift, "recent": recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self._shift = state["shift"]
        self._recent = deque((time.monotonic(), step, row) for step, row in state.get("recent", []))

    def _settings(self) -> Any:
        # The screen belongs to the console tracker.
        chosen: dict[str, Any] = {"silent": True, "console": "off"}
        if "x_transaction_log_flush_interval" in self._tool.Settings.model_fields:
            chosen["x_transaction_log_flush_interval"] = _FLUSH_SECONDS
        return self._tool.Settings(**chosen)

    def _send(self, row: dict[str, float], step: int) -> None:
        axis = next(iter(row))
        for name in row:
            if name != axis and name not in self._defined:
                self._defined.add(name)
                self._run.define_metric(name, step_metric=axis, step_sync=False)
        self._run.log(row, step=step)


def _forget_service_of_others() -> None:
    """Forget W&B's service of another process, such as the notebook that started the stage.

    W&B names its service, `3-<process>-unix-<path>`, to all processes that are started after it.
    That service outlives a stage that is killed, and refuses the run to the stage that resumes
    it: "run ID ... is in use".
    """
    parts = os.environ.get("WANDB_SERVICE", "").split("-")
    if str(os.getpid()) not in parts[1:2]:
        os.environ.pop("WANDB_SERVICE", None)
