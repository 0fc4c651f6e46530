"""A killed training goes on, though DVC deletes the outs of a stage before it runs it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import Project, new_project

STAGE = "MaxEntropyL2"
MODEL = f"nodes/{STAGE}/model.safetensors"
HISTORY = f"nodes/{STAGE}/history.csv"
RECORD = f"nodes/{STAGE}/record"
EVERY_STEP = {"JEMTRACK_CHECKPOINT_SECONDS": "0"}


@pytest.fixture
def long(tmp_path) -> Project:
    """A project whose trainer takes some seconds."""
    project = new_project(tmp_path / "project")
    for name, value in {"n_epochs": 12, "batch_size": 32, "dropout_rate": 0.2}.items():
        project.set(f"{STAGE}.params.{name}", value)
    project.commit("a longer training")
    project.repro("PrepareData")
    return project


def start(project: Project) -> subprocess.Popen[str]:
    """Start `dvc repro` of the one stage, done or not, in a process group of its own."""
    return subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", STAGE],
        cwd=project.path,
        env={
            **os.environ,
            **EVERY_STEP,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def steps_saved(project: Project) -> int:
    """Give the optimization steps of the newest checkpoint; 0 without one."""
    found = (project.path / ".jemtrack").glob("*/*.checkpoint")
    return max((int(path.name.split("-")[1].removeprefix("step")) for path in found), default=0)


def kill_after(project: Project, n_steps: int) -> None:
    """Kill the whole group once `n_steps` more steps are saved."""
    goal = steps_saved(project) + n_steps
    process = start(project)
    try:
        deadline = time.monotonic() + 120
        while steps_saved(project) < goal:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def outs(project: Project) -> tuple[bytes, bytes]:
    return (project.path / MODEL).read_bytes(), (project.path / HISTORY).read_bytes()


def recorded(project: Project, name: str) -> list[dict]:
    lines = (project.path / RECORD / name).read_text().splitlines()
    return [json.loads(line) for line in lines]


def content(lines: list[dict]) -> list[dict]:
    """Leave out what differs between two sessions that do the same."""
    return [{**line, "timestamp": "", "session_id": ""} for line in lines]


def test_a_killed_training_ends_as_one_that_was_not(long):
    long.repro(STAGE)
    whole = outs(long)
    batches, epochs = recorded(long, "train.jsonl"), recorded(long, "epochs.jsonl")
    assert [line["global_step"] for line in batches] == [*range(1, len(batches) + 1)]
    assert [line["epoch"] for line in epochs] == [*range(1, 13)]

    chosen = random.Random(1)
    for _ in range(3):
        kill_after(long, chosen.randint(1, 100))
    process = start(long)
    said, _ = process.communicate()

    assert process.returncode == 0, said
    assert "goes on at phase train (1/1)" in said
    assert outs(long) == whole
    assert content(recorded(long, "train.jsonl")) == content(batches)
    assert content(recorded(long, "epochs.jsonl")) == content(epochs)
    run = recorded(long, "run.jsonl")
    assert [line["status"] for line in run if line["event"] == "run_end"] == ["success"]
    starts = [line for line in run if line["event"] == "run_start"]
    assert len({line["session_id"] for line in starts}) == len(starts) == 4
    assert len({line["run_id"] for line in starts}) == 1
    reached = [line["global_step"] for line in starts]
    assert reached == sorted(reached)
    assert reached[-1] > 0
    # Each session's steps are those that the next one did not repeat.
    written = [line["session_id"] for line in recorded(long, "train.jsonl")]
    assert set(written) <= {line["session_id"] for line in starts}
    assert not list((long.path / ".jemtrack").glob(f"{STAGE}-*"))


def test_other_parameters_start_afresh_and_the_first_still_goes_on(long):
    kill_after(long, 20)
    first = steps_saved(long)

    rate = long.read("params.yaml")[STAGE]["params"]["lr"]
    long.set(f"{STAGE}.params.lr", rate * 2)
    assert "goes on at" not in long.run("dvc", "repro", STAGE)
    long.set(f"{STAGE}.params.lr", rate)
    assert steps_saved(long) == first
    assert "goes on at" in long.run("dvc", "repro", STAGE)


def test_an_orphan_is_waited_for(long):
    process = start(long)
    while not steps_saved(long):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)  # dvc alone: the stage trains on
    process.wait()

    said = long.run("dvc", "repro", STAGE)

    assert "trains this already: waiting for it" in said
    assert "goes on at" in said
    assert not list((long.path / ".jemtrack").glob(f"{STAGE}-*"))
