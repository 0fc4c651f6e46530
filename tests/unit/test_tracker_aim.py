import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tracked_run import (
    PARAMETERS,
    assert_same_record,
    broken_off,
    diverged_run,
    end,
    expected,
    start,
    steps,
    tell_resumed,
    tell_to_end,
    whole_run,
)
from tracker_readers import aim_record, aim_run

from jemtrack.events.events import ArtifactSaved
from jemtrack.shared.plain import plain
from jemtrack.trackers.aim import Aim

if sys.version_info >= (3, 13):
    pytest.skip("Aim is not published for this Python", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the repository is: creating one takes Aim seconds."""
    return tmp_path_factory.mktemp("aim")


def of_run(events, run_id) -> list:
    return [replace(events[0], run_id=run_id), *events[1:]]


def assert_shown(folder: Path, run_id: str, events) -> Any:
    run = aim_run(folder, run_id)
    assert_same_record(aim_record(run), expected(events))
    return run


def test_aim_holds_the_run(folder):
    saved = ArtifactSaved(Path("weights/epoch_001.safetensors"), "weights")
    events = of_run([*whole_run()[:-1], saved, end()], "whole")

    tell_to_end(Aim(folder=str(folder), every=1), events)

    run = assert_shown(folder, "whole", whole_run())
    assert (run.name, run.experiment, run["status"]) == ("Trainer whole", "jemtrack", "success")
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


def test_a_run_that_was_killed_is_resumed_and_has_each_step_once(folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED, str(folder)]
    killed = subprocess.run(command, check=False, stdout=subprocess.PIPE, env=environment)
    assert killed.returncode == -9

    tell_resumed(Aim(folder=str(folder), every=1), json.loads(killed.stdout.splitlines()[-1]))

    assert_shown(folder, "run-1", whole_run())


def test_after_a_divergence_the_last_value_of_a_step_is_kept(folder):
    tell_to_end(Aim(folder=str(folder), every=1), of_run(diverged_run(), "diverged"))

    assert_shown(folder, "diverged", diverged_run())


@pytest.mark.parametrize(
    ("run_id", "events"), [("broken", broken_off(4)), ("untold", [start(), *steps(1, 5)])]
)
def test_a_broken_off_run_has_its_epochs_and_has_failed(folder, run_id, events):
    tell_to_end(Aim(folder=str(folder)), of_run(events, run_id))

    run = aim_run(folder, run_id)
    assert run["status"] == "failed"
    record = aim_record(run)
    assert record.epoch == {1: {"train_loss": 1 / 7}}
    assert record.batch == {}
