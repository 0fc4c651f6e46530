import json
import subprocess
import sys
from pathlib import Path

import pytest
from tracked_run import (
    N_STEPS,
    PARAMETERS,
    assert_same,
    broken_off,
    curves,
    diverged_run,
    end,
    expected,
    tell_killed,
    tell_resumed,
    tell_to_end,
    whole_run,
)

from jemtrack.engine.events import ArtifactSaved
from jemtrack.trackers.plain import plain
from jemtrack.trackers.wandb import WeightsAndBiases


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    # The files that are not the run's: caches, settings and the like.
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "own"))
    return tmp_path


def wandb(folder, every=1) -> WeightsAndBiases:
    return WeightsAndBiases(folder=str(folder), every=every)


def records(folder) -> list[dict]:
    """What W&B's own reader finds in the log of the one run in `folder`."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    told = subprocess.run(command, capture_output=True, check=True, text=True)
    return [json.loads(line) for line in told.stdout.splitlines()]


def rows(folder) -> list[dict]:
    return [each["history"] for each in records(folder) if each["type"] == "history"]


def number(value) -> float:
    return float(value)  # W&B's JSON has NaN as text


def points(found: list[dict], axis: str) -> dict:
    """The points by `epoch` or `step`; of a step that stands twice, the last."""
    shown = {}
    for row in found:
        for name, value in row["item"].items():
            by_step = name.startswith(("batch.", "measured."))
            is_metric = not name.startswith("_") and name not in {"epoch", "step"}
            if axis in row["item"] and is_metric and by_step == (axis == "step"):
                shown.setdefault(name, {})[row["item"][axis]] = number(value)
    return {name: sorted(values.items()) for name, values in shown.items()}


def assert_shown(found: list[dict], events) -> None:
    record = expected(events)
    assert_same(points(found, "epoch"), curves(record.epoch))
    by_step = curves(record.batch, "batch.") | curves(record.measured, "measured.")
    assert_same(points(found, "step"), by_step)


def last(found: list[dict], kind: str) -> dict:
    return [each[kind] for each in found if each["type"] == kind][-1]


def test_wandb_holds_the_run(folder):
    weights = folder / "epoch_001.safetensors"
    weights.write_bytes(b"weights")

    tell_to_end(wandb(folder), [*whole_run()[:-1], ArtifactSaved(weights, "weights"), end()])

    found = records(folder)
    history = [each["history"] for each in found if each["type"] == "history"]
    assert_shown(history, whole_run())
    assert [row["item"]["_step"] for row in history] == [*range(N_STEPS + 1)]
    run = last(found, "run")
    assert (run["run_id"], run["display_name"], run["project"]) == (
        "run-1", "test/Trainer", "jemtrack",
    )  # fmt: skip
    config = {name: value for name, value in run["config"]["update"].items() if name != "_wandb"}
    assert config == plain(PARAMETERS)
    axes = {
        each["metric"]["name"]: each["metric"]["step_metric"]
        for each in found
        if each["type"] == "metric" and "step_metric" in each["metric"]
    }
    assert axes["train_loss"] == "epoch"
    assert axes["batch.loss"] == axes["measured.learning_rate.network"] == "step"
    assert json.dumps(found).count('"run.train_loss": 0.0357') == 1
    assert "epoch_001.safetensors" in json.dumps(found)
    assert last(found, "exit").get("exit_code", 0) == 0


def test_a_later_session_is_of_the_same_run_and_says_the_same(folder):
    killed = wandb(folder / "1")
    state = tell_killed(killed)
    killed.close()

    tell_resumed(wandb(folder / "2"), state)

    first, second = records(folder / "1"), records(folder / "2")
    assert last(first, "run")["run_id"] == last(second, "run")["run_id"] == "run-1"
    rows = [each["history"] for each in first + second if each["type"] == "history"]
    assert_shown(rows, whole_run())
    # W&B refuses a step that it has: what stands twice must have the same one.
    by_step = {}
    for row in rows:
        if "batch.loss" in row["item"]:
            by_step.setdefault(row["item"]["_step"], set()).add(row["item"]["batch.loss"])
    assert by_step.keys() == {*range(1, N_STEPS + 1)}
    assert {len(values) for values in by_step.values()} == {1}
    assert last(first, "exit")["exit_code"] == 1


def test_after_a_divergence_the_last_values_are_the_right_ones(folder):
    tell_to_end(wandb(folder), diverged_run())

    found = rows(folder)
    assert_shown(found, diverged_run())
    taken = [row["item"]["_step"] for row in found]
    assert taken == sorted(set(taken))


def test_epochs_alone_are_logged_by_default_and_a_failed_run_is_marked(folder):
    tell_to_end(WeightsAndBiases(folder=str(folder)), broken_off(4))

    found = records(folder)
    assert points([each["history"] for each in found if each["type"] == "history"], "epoch") == {
        "train_loss": [(1, 1 / 7)]
    }
    assert not any("batch.loss" in json.dumps(each) for each in found)
    assert last(found, "exit")["exit_code"] == 1
