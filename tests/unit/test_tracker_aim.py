import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tracked_run import (
    N_STEPS,
    PARAMETERS,
    Points,
    assert_same,
    broken_off,
    curves,
    diverged_run,
    end,
    expected,
    start,
    steps,
    tell_resumed,
    tell_to_end,
    whole_run,
)

from jemtrack.record.plain import plain
from jemtrack.trackers.aim import Aim
from jemtrack.train.events import ArtifactSaved

if sys.version_info >= (3, 13):
    pytest.skip("Aim is not published for this Python", allow_module_level=True)

from aim import Repo, Run


def stored(folder: Path) -> Run:
    """Open the only run of the repository in `folder` with Aim's own reader."""
    gc.collect()  # until then, Aim's database is locked by who wrote
    (known,) = Repo.from_path(str(folder)).structured_db.runs()
    return Run(
        known.hash,
        repo=str(folder),
        system_tracking_interval=None,
        log_system_params=False,
        capture_terminal_logs=False,
    )


def points(run: Run) -> dict[str, Points]:
    """Read all points by level and metric."""
    found: dict[str, Points] = {}
    for metric in run.metrics():
        values = sorted((int(step), value) for step, (value, *_) in metric.data.items())
        found.setdefault(metric.context["level"], {})[metric.name] = values
    return found


def assert_shown(folder: Path, events) -> Run:
    record, run = expected(events), stored(folder)
    found = points(run)
    for level in ("batch", "epoch", "measured"):
        assert_same(found.get(level, {}), curves(getattr(record, level)))
    assert_same(found["run"], curves({0: record.run}))
    return run


def test_aim_holds_the_run(tmp_path):
    saved = ArtifactSaved(Path("weights/epoch_001.safetensors"), "weights")

    tell_to_end(Aim(folder=str(tmp_path), every=1), [*whole_run()[:-1], saved, end()])

    run = assert_shown(tmp_path, whole_run())
    assert (run.name, run.experiment, run["status"]) == ("test/Trainer", "jemtrack", "success")
    assert run["parameters"] == plain(PARAMETERS)
    assert run["artifacts", "epoch_001.safetensors", "path"] == str(saved.path)


KILLED = """
import json, os, sys
from tracked_run import tell_killed
from jemtrack.trackers.aim import Aim

state = tell_killed(Aim(folder=sys.argv[1], every=1))
print(json.dumps(state), flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_run_that_was_killed_is_resumed_and_has_each_step_once(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    killed = subprocess.run(command, check=False, stdout=subprocess.PIPE, env=environment)
    assert killed.returncode == -9

    tell_resumed(Aim(folder=str(tmp_path), every=1), json.loads(killed.stdout.splitlines()[-1]))

    found = points(assert_shown(tmp_path, whole_run()))
    assert [step for step, _ in found["batch"]["loss"]] == [*range(1, N_STEPS + 1)]


def test_after_a_divergence_the_last_value_of_a_step_is_kept(tmp_path):
    tell_to_end(Aim(folder=str(tmp_path), every=1), diverged_run())

    assert_shown(tmp_path, diverged_run())


@pytest.mark.parametrize(
    ("events", "status"), [(broken_off(4), "failed"), ([start(), *steps(1, 5)], "failed")]
)
def test_a_broken_off_run_has_its_epochs_and_has_failed(tmp_path, events, status):
    tell_to_end(Aim(folder=str(tmp_path)), events)

    run = stored(tmp_path)
    assert run["status"] == status
    assert_same(points(run)["epoch"], {"train_loss": [(1, 1 / 7)]})
    assert "batch" not in points(run)
