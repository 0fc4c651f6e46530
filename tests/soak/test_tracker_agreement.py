"""All trackers tell the same of a stage that was killed and went on under DVC."""

import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from killing import killed, start, steps_saved
from project import Project
from tracked_run import assert_same, assert_same_record, curves
from tracker_readers import (
    aim_record,
    aim_run,
    dvclive_points,
    mlflow_points,
    mlflow_run,
    single,
    sql_record,
    tensorboard_expected,
    tensorboard_points,
    wandb_points,
    wandb_records,
)

from jemtrack.record.jsonl import Record, read_lines, read_record

STAGE = "MaxEntropyL2"
N_EPOCHS = 4
TRACKERS = """
trackers:
  - type: jsonl
  - type: tensorboard
  - type: dvclive
  - {type: mlflow, every: 1}
  - type: sql
  - {type: wandb, every: 1}
"""
WITH_AIM = sys.version_info < (3, 13)  # it is not published for later ones
if WITH_AIM:
    TRACKERS += "  - {type: aim, every: 1}\n"


@pytest.fixture
def tracked(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb"))
    wandb.setup()  # as in a notebook: its service is named to all that is started after it
    assert "WANDB_SERVICE" in os.environ
    for name, value in {"n_epochs": N_EPOCHS, "batch_size": 64}.items():
        project.set(f"{STAGE}.params.{name}", value)
    (project.path / "jemtrack.yaml").write_text(TRACKERS)
    return Project(project.path, packages={})


def kill_in_the_middle(project: Project) -> None:
    """Kill all processes once an epoch is done and some steps came after a checkpoint."""
    with killed(start(project, "dvc", "repro", STAGE, seconds=0.2)) as process:
        until = time.monotonic() + 300
        while not 0 < steps_saved(project) < steps_recorded(project) - 1:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until
            time.sleep(0.002)


def steps_recorded(project: Project) -> int:
    """Give the optimization steps in the record of a training; 0 in the first epoch."""
    paths = (project.path / ".jemtrack").glob("*/record/train.jsonl")
    lines = [line for path in paths for line in read_lines(path)]
    return lines[-1]["global_step"] if lines and lines[-1]["epoch"] > 1 else 0


def history(path: Path) -> dict[int, dict[str, float]]:
    with path.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    return {
        int(row["epoch"]): {
            name: float(value) for name, value in row.items() if value and name != "epoch"
        }
        for row in rows
    }


def dvc_plots(project: Project, folder: Path, metric: str) -> list[tuple[int, float]]:
    """The points that DVC draws of one of DVCLive's files."""
    file = str((folder / "plots" / "metrics" / f"{metric}.tsv").relative_to(project.path))
    told = project.run("dvc", "plots", "show", file, "--json", "-x", "step", "-y", metric)
    (plot,) = json.loads(told.splitlines()[-1])["data"][file]
    rows = plot["content"]["data"]["values"]
    return [(int(row["step"]), float(row[metric])) for row in rows]


def test_all_trackers_agree_on_a_stage_that_was_killed_and_went_on(tracked: Project):
    kill_in_the_middle(tracked)
    said = tracked.run("dvc", "repro", STAGE)
    assert "resumes at phase train (1/1)" in said
    assert "may lack a part of the run" not in said

    node = tracked.path / "nodes" / STAGE
    run = tracked.path / "experiment" / "energy_model" / STAGE
    record = read_record(node / "record")
    starts = [
        line for line in read_lines(node / "record" / "run.jsonl") if line["event"] == "run_start"
    ]
    assert [line["global_step"] > 0 for line in starts] == [False, True]
    assert_each_step_once(node / "record", record)
    batch, epoch = curves(record.batch), curves(record.epoch)
    assert batch.keys() >= {"loss", "cross_entropy", "entropy_penalty"}
    assert epoch.keys() >= {"train_loss", "valid_nll", "valid_accuracy"}

    assert_same_record(read_record(run / "record"), record)
    assert_same(curves(history(node / "history.csv")), epoch)
    assert_same_record(sql_record(tracked.path / "runs.db", starts[0]["run_id"]), record)

    if WITH_AIM:
        assert_same_record(aim_record(aim_run(tracked.path, starts[0]["run_id"])), record)

    (logs,) = (run / "tensorboard").iterdir()
    epochs = read_lines(node / "record" / "epochs.jsonl")
    by_step = tensorboard_expected(record, {line["epoch"]: line["global_step"] for line in epochs})
    assert_same(tensorboard_points(logs), single(by_step))

    client, logged = mlflow_run(f"sqlite:///{tracked.path}/mlflow.db", starts[0]["run_id"])
    by_batch = curves(record.batch, "batch/")
    assert_same(mlflow_points(client, logged), epoch | by_batch | curves({0: record.run}, "run/"))

    assert_same(dvclive_points(run / "dvclive"), epoch)
    assert dvc_plots(tracked, run / "dvclive", "valid_nll") == epoch["valid_nll"]

    rows = [each["history"] for each in wandb_records(tracked.path) if each["type"] == "history"]
    assert_same(wandb_points(rows, "epoch"), epoch)
    assert_same(wandb_points(rows, "step"), by_batch)


def assert_each_step_once(folder: Path, record: Record) -> None:
    lines = [*read_lines(folder / "train.jsonl")]
    assert [line["global_step"] for line in lines] == [*range(1, len(lines) + 1)]
    assert len(lines) % N_EPOCHS == 0
    assert [line["epoch"] for line in read_lines(folder / "epochs.jsonl")] == [*record.epoch]
    assert [*record.epoch] == [*range(1, N_EPOCHS + 1)]
