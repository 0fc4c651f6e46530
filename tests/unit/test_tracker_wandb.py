import json
import os
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
from tracker_readers import wandb_points, wandb_records

from jemtrack.events.events import ArtifactSaved
from jemtrack.shared.plain import plain
from jemtrack.trackers.wandb import WeightsAndBiases


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    # The files that are not the run's: caches, settings and the like.
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "own"))
    return tmp_path


def wandb(folder, every=1) -> WeightsAndBiases:
    return WeightsAndBiases(folder=str(folder), every=every)


def rows(folder) -> list[dict]:
    return [each["history"] for each in wandb_records(folder) if each["type"] == "history"]


def assert_shown(found: list[dict], events) -> None:
    record = expected(events)
    assert_same(wandb_points(found, "epoch"), curves(record.epoch))
    by_step = curves(record.batch, "batch/") | curves(record.measured, "measured/")
    assert_same(wandb_points(found, "step"), by_step)


def last(found: list[dict], kind: str) -> dict:
    return [each[kind] for each in found if each["type"] == kind][-1]


def test_wandb_holds_the_run(folder, monkeypatch):
    monkeypatch.setenv("JEMTRACK_GROUP", "one repro")
    weights = folder / "epoch_001.safetensors"
    weights.write_bytes(b"weights")

    tell_to_end(wandb(folder), [*whole_run()[:-1], ArtifactSaved(weights, "weights"), end()])

    found = wandb_records(folder)
    history = [each["history"] for each in found if each["type"] == "history"]
    assert_shown(history, whole_run())
    assert [row["item"]["_step"] for row in history] == [*range(N_STEPS + 1)]
    run = last(found, "run")
    assert (run["run_id"], run["display_name"], run["project"]) == (
        "run-1", "Trainer run-1", "jemtrack",
    )  # fmt: skip
    assert (run["run_group"], run["job_type"]) == ("one repro", "Trainer")
    config = {name: value for name, value in run["config"]["update"].items() if name != "_wandb"}
    assert config == plain(PARAMETERS)
    axes = {
        each["metric"]["name"]: each["metric"]["step_metric"]
        for each in found
        if each["type"] == "metric" and "step_metric" in each["metric"]
    }
    assert axes["train_loss"] == "epoch"
    assert axes["batch/loss"] == axes["measured/learning_rate.network"] == "step"
    assert json.dumps(found).count('"run/train_loss": 0.0357') == 1
    assert "epoch_001.safetensors" in json.dumps(found)
    assert last(found, "exit").get("exit_code", 0) == 0


def test_a_service_of_another_process_is_left(folder, monkeypatch):
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere/socket")

    tell_to_end(wandb(folder), whole_run())

    assert "nowhere" not in os.environ.get("WANDB_SERVICE", "")
    assert_shown(rows(folder), whole_run())


def test_a_later_session_is_of_the_same_run_and_says_the_same(folder):
    killed = wandb(folder / "1")
    state = tell_killed(killed)
    killed.close()

    tell_resumed(wandb(folder / "2"), state)

    first, second = wandb_records(folder / "1"), wandb_records(folder / "2")
    assert last(first, "run")["run_id"] == last(second, "run")["run_id"] == "run-1"
    rows = [each["history"] for each in first + second if each["type"] == "history"]
    assert_shown(rows, whole_run())
    # W&B refuses a step that it has: what stands twice must have the same one.
    by_step = {}
    for row in rows:
        if "batch/loss" in row["item"]:
            by_step.setdefault(row["item"]["_step"], set()).add(row["item"]["batch/loss"])
    assert by_step.keys() == {*range(1, N_STEPS + 1)}
    assert {len(values) for values in by_step.values()} == {1}
    assert last(first, "exit")["exit_code"] == 1


def test_what_a_killed_session_may_not_have_written_is_told_again(folder, monkeypatch):
    monkeypatch.setattr("jemtrack.trackers.wandb._AGAIN_SECONDS", 3600.0)
    killed = wandb(folder / "1")
    state = json.loads(json.dumps(tell_killed(killed)))
    killed.close()

    tell_resumed(wandb(folder / "2"), state)

    assert_shown(rows(folder / "2"), whole_run())


def test_what_was_told_long_before_a_checkpoint_is_written_by_then(folder, monkeypatch):
    monkeypatch.setattr("jemtrack.trackers.wandb._AGAIN_SECONDS", 0.0)
    tracker = wandb(folder)

    assert tell_killed(tracker)["recent"] == []
    tracker.close()


def test_after_a_divergence_the_last_values_are_the_right_ones(folder):
    tell_to_end(wandb(folder), diverged_run())

    found = rows(folder)
    assert_shown(found, diverged_run())
    taken = [row["item"]["_step"] for row in found]
    assert taken == sorted(set(taken))


def test_epochs_alone_are_logged_by_default_and_a_failed_run_is_marked(folder):
    tell_to_end(WeightsAndBiases(folder=str(folder)), broken_off(4))

    found = wandb_records(folder)
    assert wandb_points(
        [each["history"] for each in found if each["type"] == "history"], "epoch"
    ) == {"train_loss": [(1, 1 / 7)]}
    assert not any("batch/loss" in json.dumps(each) for each in found)
    assert last(found, "exit")["exit_code"] == 1
