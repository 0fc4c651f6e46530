"""What trackers have stored, read by each tool's own reader and brought to one form."""

import csv
import gc
import json
import math
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tracked_run import Points, curves

from jemtrack.record.jsonl import Record


def event_files(folder: Path) -> EventAccumulator:
    # 0: keep every point.
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def tensorboard_points(folder: Path) -> Points:
    found = event_files(folder)
    return {
        tag: [(point.step, point.value) for point in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def tensorboard_expected(record: Record, steps: Mapping[int, int]) -> Points:
    """What TensorBoard is to show of a record; `steps` are the ends of its epochs."""
    epochs = {steps[epoch]: {"epoch": epoch, **each} for epoch, each in record.epoch.items()}
    run = {max(record.batch): record.run}
    return {
        **curves(epochs),
        **curves(record.batch, "batch/"),
        **curves(record.measured, "measured/"),
        **curves(run, "run/"),
    }


def single(points: Points) -> Points:
    """The same in TensorBoard's precision."""
    return {
        name: [(step, float(np.float32(value))) for step, value in values]
        for name, values in points.items()
    }


def mlflow_run(uri: str, run_id: str, experiment: str = "jemtrack") -> tuple[Any, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id], f"tags.`jemtrack.run_id` = '{run_id}'")
    return client, run


def mlflow_points(client: Any, run: Any) -> Points:
    """All points of each metric, in the order in which they were logged."""
    return {
        key: [
            (point.step, point.value)
            for point in sorted(
                client.get_metric_history(run.info.run_id, key), key=lambda each: each.timestamp
            )
        ]
        for key in run.data.metrics
    }


def dvclive_points(folder: Path) -> Points:
    found = {}
    for path in (folder / "plots" / "metrics").glob("*.tsv"):
        with path.open(newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            found[path.stem] = [(int(row["step"]), float(row[path.stem])) for row in rows]
    return found


def aim_run(folder: Path, run_id: str) -> Any:
    """The only run of that id in the Aim repository in `folder`."""
    from aim import Repo, Run

    gc.collect()  # whoever wrote in this process locks Aim's database until then
    time.sleep(0.6)  # for half a second Aim takes the list of runs from memory
    runs = Repo.from_path(str(folder)).structured_db.runs()
    (known,) = (run for run in runs if run.description == run_id)
    quiet = {"log_system_params": False, "capture_terminal_logs": False}
    return Run(known.hash, repo=str(folder), system_tracking_interval=None, **quiet)


def aim_record(run: Any) -> Record:
    record = Record()
    for metric in run.metrics():
        level = metric.context["level"]
        for step, (value, *_) in metric.data.items():
            values = record.run if level == "run" else getattr(record, level).setdefault(step, {})
            values[metric.name] = value
    return record


def sql_record(path: Path, run_id: str) -> Record:
    record = Record()
    connection = sqlite3.connect(path)
    statement = "SELECT level, step, name, value FROM metric WHERE run_id = ?"
    for level, step, name, value in connection.execute(statement, [run_id]).fetchall():
        values = record.run if level == "run" else getattr(record, level).setdefault(step, {})
        values[name] = math.nan if value is None else value
    connection.close()
    return record


def wandb_records(folder: Path) -> list[dict]:
    """What W&B's own reader finds in the logs in `folder`, session after session."""
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        told = subprocess.run(command, capture_output=True, check=True, text=True)
        found += [json.loads(line) for line in told.stdout.splitlines()]
    return found


def wandb_points(rows: Iterable[dict], axis: str) -> Points:
    """The points by `epoch` or `step`; of a step that stands twice, the last."""
    shown: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row["item"].items():
            by_step = name.startswith(("batch/", "measured/"))
            is_metric = not name.startswith("_") and name not in {"epoch", "step"}
            if axis in row["item"] and is_metric and by_step == (axis == "step"):
                # W&B's JSON has NaN as text.
                shown.setdefault(name, {})[row["item"][axis]] = float(value)
    return {name: sorted(values.items()) for name, values in shown.items()}
