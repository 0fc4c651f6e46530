"""Runs for MLflow."""

import math
import re
import time
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.record.paths import DatabaseUrl
from jemtrack.record.plain import as_text, flat, plain
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

_TAG = "jemtrack.run_id"
_VALUE_LIMIT = 6000  # characters of a parameter
_BATCH_LIMITS = {"params": 100, "metrics": 1000}  # entries a request
_BY_STEP = ("batch.", "measured.")  # the prefixes of what goes by optimization step
_ENDS = {
    Status.SUCCESS: "FINISHED",
    Status.STOPPED: "FINISHED",
    Status.FAILED: "FAILED",
    Status.ABORTED: "KILLED",
}


@component("mlflow")
class Mlflow(Tracker):
    """Logs a run into an MLflow database or server, and goes on with it when training does.

    Epochs' metrics go under their names by epoch, the others as `batch.<metric>` and
    `measured.<metric>` by optimization step, the run's as `run.<metric>`. MLflow forgets
    nothing: a value that it has for that step already is not logged again, and after a
    divergence the latest value of a step is the right one.
    """

    uri: str = DatabaseUrl(str, "MLflow's tracking URI", default="sqlite:///mlflow.db")
    experiment: str = Option(str, "the experiment that gets the run", default="jemtrack")
    every: int = Option(int, "batches between two points; 0: epochs only", default=0, minimum=0)

    def _post_init_(self) -> None:
        if "://" not in self.uri or self.uri.startswith("file:"):
            raise InputError(
                f"Mlflow.uri must name a database or a server, such as sqlite:///mlflow.db "
                f"(MLflow keeps runs in plain files no more), got {self.uri!r}"
            )
        self._tool = load_extra("mlflow", "mlflow")
        self._client: Any = None
        self._run = ""
        self._pending: list[Any] = []
        self._stored: dict[tuple[str, int], float] = {}
        self._time = 0

    def __call__(self, event: Event) -> None:
        """Log what is new; batches wait for the epoch's end."""
        match event:
            case BatchEnd(status=Status.SUCCESS) if self.every and event.step % self.every == 0:
                self._take("batch.", event.metrics, event.step)
            case Measured():
                self._take("measured.", event.metrics, event.step)
            case EpochEnd(status=Status.SUCCESS):
                self._take("", event.metrics, event.epoch)
                self._send()
            case RunStart():
                self._start(event)
            case Diverged():
                self._stored.clear()
                self._pending = [metric for metric in self._pending if metric.step <= event.step]
            case ArtifactSaved():
                self._client.log_artifact(self._run, str(event.path), event.kind)
            case RunEnd():
                self._take("run.", event.metrics, 0)
                self._end(event.status)

    def state_dict(self) -> dict[str, Any]:
        """Log what waits: what a checkpoint holds does not happen again."""
        self._send()
        return {}

    def close(self) -> None:
        """End the run as failed where nothing else was said."""
        if self._run:
            self._end(Status.FAILED)

    def _start(self, event: RunStart) -> None:
        self._client = self._tool.MlflowClient(tracking_uri=self.uri)
        experiment = self._experiment_id()
        wanted = f"tags.`{_TAG}` = '{event.run_id}'"
        found = self._client.search_runs([experiment], wanted, max_results=1)
        if event.run_id and found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            self._stored = self._read_stored(found[0], event)
        else:
            tags = {_TAG: event.run_id}
            created = self._client.create_run(experiment, tags=tags, run_name=event.name)
            self._run = created.info.run_id
        self._client.log_dict(self._run, plain(event.parameters), "parameters.json")
        parameter = self._tool.entities.Param
        self._log_batches(
            "params",
            [
                parameter(_allowed(name), as_text(value)[:_VALUE_LIMIT])
                for name, value in flat(event.parameters).items()
            ],
        )

    def _experiment_id(self) -> str:
        client, name = self._client, self.experiment
        if (found := client.get_experiment_by_name(name)) is None:
            try:
                return str(client.create_experiment(name, artifact_location=self._artifacts()))
            except self._tool.MlflowException:
                # Another run may have made it in between.
                if (found := client.get_experiment_by_name(name)) is None:
                    raise
        return str(found.experiment_id)

    def _artifacts(self) -> str | None:
        """Give the folder beside a SQLite database; a server knows its own place."""
        path = self.uri.partition("sqlite:///")[2]
        return (Path(path).resolve().parent / "mlartifacts").as_uri() if path else None

    def _read_stored(self, run: Any, event: RunStart) -> dict[tuple[str, int], float]:
        """Read the values that an earlier session logged and that will come again."""
        stored: dict[tuple[str, int], float] = {}
        for key in run.data.metrics:
            history = self._client.get_metric_history(self._run, key)
            for metric in sorted(history, key=lambda metric: metric.timestamp):
                if metric.step >= _first_again(key, event):
                    stored[key, metric.step] = metric.value
        return stored

    def _take(self, prefix: str, metrics: Metrics, step: int) -> None:
        # MLflow tells the values of a step apart by their times, in milliseconds.
        self._time = max(time.time_ns() // 1_000_000, self._time + 1)
        for name, value in metrics.items():
            key = f"{prefix}{name}"
            if not _equal(self._stored.get((key, step)), value):
                self._pending.append(self._tool.entities.Metric(key, value, self._time, step))

    def _send(self) -> None:
        if self._run:
            self._log_batches("metrics", self._pending)
        self._pending = []

    def _log_batches(self, kind: str, entries: list[Any]) -> None:
        size = _BATCH_LIMITS[kind]
        for first in range(0, len(entries), size):
            self._client.log_batch(self._run, **{kind: entries[first : first + size]})

    def _end(self, status: Status) -> None:
        run = self._run
        self._send()
        self._run = ""
        self._client.set_tag(run, "jemtrack.status", str(status))
        self._client.set_terminated(run, _ENDS[status])


def _first_again(key: str, event: RunStart) -> int:
    """Give the first step of a metric that will come again."""
    if key.startswith("run."):
        return 0
    return event.step if key.startswith(_BY_STEP) else event.epoch


def _equal(stored: float | None, value: float) -> bool:
    return stored == value or (stored is not None and math.isnan(stored) and math.isnan(value))


def _allowed(name: str) -> str:
    """Give a parameter's name in the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)
