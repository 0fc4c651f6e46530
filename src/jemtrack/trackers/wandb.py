"""Runs for Weights & Biases."""

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from jemtrack.record.paths import SharedPath
from jemtrack.record.plain import plain
from jemtrack.train.components import Option, component, load_extra
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

# W&B writes what it was told to the disk at this interval; a kill takes the rest.
_FLUSH_SECONDS = 1.0
_AGAIN_SECONDS = 10.0  # what was told within these before a checkpoint is told again after a kill

_WHOLE = {Status.SUCCESS, Status.STOPPED}


@component("wandb")
class WeightsAndBiases(Tracker):
    """Logs a run; a session that goes on with it has the same id, as `wandb sync` expects.

    Epochs' metrics go under their names by `epoch`, the others as `batch.<metric>` and
    `measured.<metric>` by `step`, the run's into the summary as `run.<metric>`. W&B's own step is
    the optimization step: W&B refuses to go back, so that of what a later session repeats, with
    equal values, one is kept. What is void after a divergence it cannot take back: there, the
    last value of an epoch or step is the right one.
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
        self._exit_code = 1
        self._last, self._shift = 0, 0
        self._recent: deque[tuple[float, int, dict[str, float]]] = deque()

    def __call__(self, event: Event) -> None:
        """Log a row."""
        match event:
            case BatchEnd(status=Status.SUCCESS) if self.every and event.step % self.every == 0:
                self._log({"step": event.step}, "batch.", event.metrics, event.step)
            case Measured():
                self._log({"step": event.step}, "measured.", event.metrics, event.step)
            case EpochEnd(status=Status.SUCCESS):
                self._log({"epoch": event.epoch}, "", event.metrics, event.step)
            case RunStart():
                self._start(event)
            case Diverged():
                self._shift = max(self._shift, self._last - event.step)
            case ArtifactSaved():
                self._add_file(event)
            case RunEnd():
                self._exit_code = 0 if event.status in _WHOLE else 1
                values = {f"run.{name}": value for name, value in event.metrics.items()}
                self._run.summary.update({"status": str(event.status), **values})

    def state_dict(self) -> dict[str, Any]:
        """Give how far W&B's steps are ahead, and the rows that it may not have written yet."""
        first = time.monotonic() - _AGAIN_SECONDS
        recent = [[step, row] for told, step, row in self._recent if told >= first]
        return {"shift": self._shift, "recent": recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with W&B's steps."""
        self._shift = state["shift"]
        self._recent = deque((time.monotonic(), step, row) for step, row in state.get("recent", []))

    def close(self) -> None:
        """Finish the run."""
        if self._run:
            self._run.finish(exit_code=self._exit_code)
            self._run = None

    def _start(self, event: RunStart) -> None:
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        _leave_service_of_others()
        self._run = self._tool.init(
            project=self.project,
            name=event.name,
            id=event.run_id or None,
            mode=self.mode,
            resume="allow",
            dir=self.folder,
            config=plain(event.parameters),
            settings=self._settings(),
        )
        for _, step, row in self._recent:
            self._send(row, step)

    def _settings(self) -> Any:
        # The screen is the console tracker's.
        chosen: dict[str, Any] = {"silent": True, "console": "off"}
        if "x_transaction_log_flush_interval" in self._tool.Settings.model_fields:
            chosen["x_transaction_log_flush_interval"] = _FLUSH_SECONDS
        return self._tool.Settings(**chosen)

    def _log(self, place: dict[str, int], prefix: str, metrics: Metrics, step: int) -> None:
        row = {**place, **{f"{prefix}{name}": value for name, value in metrics.items()}}
        self._last = step + self._shift
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - _AGAIN_SECONDS:
            self._recent.popleft()
        self._recent.append((now, self._last, row))
        self._send(row, self._last)

    def _send(self, row: dict[str, float], step: int) -> None:
        axis = next(iter(row))
        for name in row:
            if name != axis and name not in self._defined:
                self._defined.add(name)
                self._run.define_metric(name, step_metric=axis, step_sync=False)
        self._run.log(row, step=step)

    def _add_file(self, event: ArtifactSaved) -> None:
        artifact = self._tool.Artifact(f"{event.kind}-{self._run.id}", type=event.kind)
        artifact.add_file(str(event.path))
        self._run.log_artifact(artifact)


def _leave_service_of_others() -> None:
    """Forget W&B's service of another process, as of the notebook that started the stage.

    W&B names its service, `3-<process>-unix-<path>`, to all processes that are started after it.
    Such a one outlives a stage that is killed, and refuses the run to the stage that goes on with
    it: "run ID ... is in use".
    """
    parts = os.environ.get("WANDB_SERVICE", "").split("-")
    if str(os.getpid()) not in parts[1:2]:
        os.environ.pop("WANDB_SERVICE", None)
