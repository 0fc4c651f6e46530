"""Runs for MLflow."""

import contextlib
import getpass
import json
import math
import re
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.events.events import MODEL, Metrics, RunStart, Status
from jemtrack.record.paths import DatabaseUrl
from jemtrack.shared.components import Option, component, load_extra
from jemtrack.shared.plain import as_text, flat, plain
from jemtrack.trackers.base import CurveTracker, Level, qualified, run_group, run_label, run_origin

_TAG, _GROUP_TAG = "jemtrack.run_id", "jemtrack.group"
_MODEL_CODE = Path(__file__).parents[1] / "jem" / "mlflow_model.py"
_VALUE_LIMIT = 6000  # characters of a parameter
_DIGEST_LIMIT = 36  # of a data set's digest
_BATCH_LIMITS = {"params": 100, "metrics": 1000}  # entries a request
_BY_STEP = ("batch/", "measured/", "system/")  # prefixes of what counts optimization steps
_ENDS = {
    Status.SUCCESS: "FINISHED",
    Status.STOPPED: "FINISHED",
    Status.FAILED: "FAILED",
    Status.ABORTED: "KILLED",
}
# What `performance` measures of the machine, under the names and in the units (MB are 10^6 bytes)
# of MLflow's own monitor: its page of system metrics shows what begins with `system/`. The GPU of
# the training is the only one that is measured, so it is always number 0.
_MB_PER_MIB = 1.048576
_SYSTEM = {
    "measured/machine_cpu_percent": ("system/cpu_utilization_percentage", 1.0),
    "measured/machine_memory_mib": ("system/system_memory_usage_megabytes", _MB_PER_MIB),
    "measured/gpu_percent": ("system/gpu_0_utilization_percentage", 1.0),
    "measured/machine_gpu_memory_mib": ("system/gpu_0_memory_usage_megabytes", _MB_PER_MIB),
}


@component("mlflow")
class Mlflow(CurveTracker):
    """Logs a run into an MLflow database or server, and resumes it when training does.

    The run is named after its stage and experiment; its tags tell the commit and the experiment.
    The runs of the stages of one `dvc repro` are children of one, whose status is that of the
    stage that ended last.
    Epochs' metrics keep their names, by epoch; the others are `batch/<metric>` and
    `measured/<metric>` by optimization step, those of the run `run/<metric>`. What `performance`
    measures of the machine has MLflow's names, such as `system/cpu_utilization_percentage`.
    MLflow deletes nothing: a value that it has for a step is not logged again, and after a
    divergence the latest value of a step is the valid one.
    """

    uri: str = DatabaseUrl(str, "MLflow's tracking URI", default="sqlite:///mlflow.db")
    experiment: str = Option(str, "the experiment that gets the run", default="jemtrack")
    every: int = Option(int, "batches between two points; 0: epochs only", default=0, minimum=0)

    def _post_init_(self) -> None:
        if "://" not in self.uri or self.uri.startswith("file:"):
            raise InputError(
                f"Mlflow.uri must name a database or a server, such as sqlite:///mlflow.db "
                f"(MLflow no longer keeps runs in plain files), got {self.uri!r}"
            )
        self._tool = load_extra("mlflow", "mlflow")
        self._client: Any = None
        self._run = self._parent = ""
        self._pending: list[Any] = []
        self._stored: dict[tuple[str, int], float] = {}
        self._time = 0

    def begin(self, start: RunStart) -> None:
        """Create the run, or find it by its tag; log the parameters."""
        self._client = self._tool.MlflowClient(tracking_uri=self.uri)
        experiment = self._experiment_id()
        found = self._tagged(experiment, _TAG, start.run_id)
        if start.run_id and found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            self._stored = self._read_stored(found[0], start)
        else:
            created = self._client.create_run(
                experiment, tags=_tags(start), run_name=run_label(start)
            )
            self._run = created.info.run_id
            if "dataset" in (data := start.parameters.get("data") or {}):
                self._log_data(data)
        if group := run_group():
            self._parent = self._parent_of(experiment, group)
            self._client.set_tag(self._run, "mlflow.parentRunId", self._parent)
        self._client.log_dict(self._run, plain(start.parameters), "parameters.json")
        parameters = [
            self._tool.entities.Param(_allowed(name), as_text(value)[:_VALUE_LIMIT])
            for name, value in flat(start.parameters).items()
        ]
        self._log_batches("params", parameters)

    def points(self, level: Level, step: int, metrics: Metrics) -> None:
        """Prepare the values that MLflow lacks; they wait for `flush`."""
        # MLflow tells the values of a step apart by their times, in milliseconds.
        self._time = max(time.time_ns() // 1_000_000, self._time + 1)
        for name, value in qualified(level, metrics):
            key, scale = _SYSTEM.get(name, (name, 1.0))
            value *= scale
            if not _equal(self._stored.get((key, step)), value):
                self._pending.append(self._tool.entities.Metric(key, value, self._time, step))

    def void(self, step: int, epoch: int) -> None:
        """Log no more of what waits and is void, and nothing as if MLflow had it."""
        self._stored.clear()
        self._pending = [metric for metric in self._pending if metric.step <= step]

    def artifact(self, path: Path, kind: str) -> None:
        """Store a copy of the file; a trained model as one that MLflow loads."""
        if kind == MODEL and (shape := _shape(path)):
            self._log_model(path, shape)
        else:
            self._client.log_artifact(self._run, str(path), kind)

    def flush(self) -> None:
        """Log what waits."""
        self._log_batches("metrics", self._pending)
        self._pending = []

    def end(self, status: Status) -> None:
        """End the run with its status."""
        self._client.set_tag(self._run, "jemtrack.status", str(status))
        self._client.set_terminated(self._run, _ENDS[status])
        if self._parent:
            self._client.set_terminated(self._parent, _ENDS[status])

    def _tagged(self, experiment: str, tag: str, value: str) -> list[Any]:
        return list(self._client.search_runs([experiment], f"tags.`{tag}` = '{value}'"))

    def _parent_of(self, experiment: str, group: str) -> str:
        """Return the run that is the parent of the group's; make it if there is none."""

        def first() -> str:
            runs = self._tagged(experiment, _GROUP_TAG, group)
            return min(((run.info.start_time, run.info.run_id) for run in runs), default=(0, ""))[1]

        if not (parent := first()):
            tags = {_GROUP_TAG: group, "mlflow.source.type": "LOCAL"}
            own = self._client.create_run(experiment, tags=tags, run_name=group).info.run_id
            # A stage that runs beside this one may have made one, too.
            if (parent := first()) != own:
                self._client.delete_run(own)
        self._client.update_run(parent, status="RUNNING")
        return parent

    def _log_model(self, path: Path, shape: Mapping[str, Any]) -> None:
        """Log the weights with the code that reads them, and the types of images and outputs."""
        import numpy as np

        types = self._tool.types
        images = types.TensorSpec(np.dtype("uint8"), (-1, shape["channels"], -1, -1))
        probabilities = types.TensorSpec(np.dtype("float32"), (-1, shape["n_classes"]))
        self._tool.set_tracking_uri(self.uri)
        # Models belong to the active run. The end of the block ends the run, as `end` does again.
        with warnings.catch_warnings(), self._tool.start_run(run_id=self._run):
            warnings.simplefilter("ignore")  # that there is no example, and no type hint
            self._tool.pyfunc.log_model(
                name=MODEL,
                python_model=str(_MODEL_CODE),
                artifacts={"weights": str(path)},
                signature=self._tool.models.ModelSignature(
                    types.Schema([images]), types.Schema([probabilities])
                ),
                pip_requirements=[f"jemtrack=={version('jemtrack')}"],
            )

    def _log_data(self, data: Mapping[str, Any]) -> None:
        """Log what is trained on: the name and the digest of the data set."""
        entities = self._tool.entities
        digest = data.get("digest", "")[:_DIGEST_LIMIT]
        found = entities.Dataset(data["dataset"], digest, "local", "{}")
        tag = entities.InputTag("mlflow.data.context", "training")
        self._client.log_inputs(self._run, [entities.DatasetInput(found, [tag])])

    def _experiment_id(self) -> str:
        client, name = self._client, self.experiment
        if (found := client.get_experiment_by_name(name)) is None:
            try:
                return str(client.create_experiment(name, artifact_location=self._artifacts()))
            except self._tool.MlflowException:
                # Another run may have created it in between.
                if (found := client.get_experiment_by_name(name)) is None:
                    raise
        return str(found.experiment_id)

    def _artifacts(self) -> str | None:
        """Return the folder beside a SQLite database; a server has its own."""
        path = self.uri.partition("sqlite:///")[2]
        return (Path(path).resolve().parent / "mlartifacts").as_uri() if path else None

    def _read_stored(self, run: Any, event: RunStart) -> dict[tuple[str, int], float]:
        """Read the values of an earlier session that will come again."""
        stored: dict[tuple[str, int], float] = {}
        for key in run.data.metrics:
            history = self._client.get_metric_history(self._run, key)
            for metric in sorted(history, key=lambda metric: metric.timestamp):
                if metric.step >= _first_again(key, event):
                    stored[key, metric.step] = metric.value
        return stored

    def _log_batches(self, kind: str, entries: list[Any]) -> None:
        size = _BATCH_LIMITS[kind]
        for first in range(0, len(entries), size):
            self._client.log_batch(self._run, **{kind: entries[first : first + size]})


def _tags(start: RunStart) -> dict[str, str]:
    """Return the tags of a new run; MLflow's pages show those that begin with its name."""
    tags = {_TAG: start.run_id, "mlflow.source.name": start.name, "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(OSError, KeyError):  # a container may have no names of users
        tags["mlflow.user"] = getpass.getuser()
    for name, value in run_origin().items():
        tags["mlflow.source.git.commit" if name == "commit" else f"dvc.{name}"] = value
    return tags


def _shape(path: Path) -> dict[str, Any]:
    """Read the sizes in the header of a model file; nothing of another form of file."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = json.loads((file.metadata() or {}).get("jemtrack", "{}"))
    shape: dict[str, Any] = header.get("shape", {})
    return shape if shape.keys() >= {"channels", "n_classes"} else {}


def _first_again(key: str, event: RunStart) -> int:
    """Return the first step of a metric that will come again."""
    if key.startswith("run/"):
        return 0
    return event.step if key.startswith(_BY_STEP) else event.epoch


def _equal(stored: float | None, value: float) -> bool:
    return stored == value or (stored is not None and math.isnan(stored) and math.isnan(value))


def _allowed(name: str) -> str:
    """Replace the characters that MLflow allows in no name."""
    return re.sub(r"[^\w\-. :/]", "_", name)
