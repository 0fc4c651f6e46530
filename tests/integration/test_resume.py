"""A killed training goes on, though DVC deletes the outs of a stage before it runs it."""

import itertools
import json
import os
import random
import signal

import pytest
from killing import Process, killed, start, steps_saved, training_of, wait_for_steps
from project import Project, new_project

STAGE = "MaxEntropyL2"
REPRO = ("dvc", "repro", "--force", "--single-item", STAGE)  # done or not
OUTS = [f"nodes/{STAGE}/{name}" for name in ("model.safetensors", "history.csv", "metrics.json")]
ADAM = {"optimizers": {"network": {"type": "Adam", "lr": 0.001}}}
WARM_UP = {"name": "warm_up", "n_epochs": 5, "max_steps": 30, "optimization": ADAM}
JOINT = {"name": "joint", "n_epochs": 6, "freeze": ["network.energy_head"], "optimization": ADAM}
N_STEPS = 5 * 30 + 6 * 40  # 1257 images make 40 batches
N_KILLS = 20


@pytest.fixture
def long(tmp_path) -> Project:
    """A project whose trainer takes some seconds."""
    project = new_project(tmp_path / "project")
    for name, value in {"batch_size": 32, "dropout_rate": 0.2, "norm": "batch"}.items():
        project.set(f"{STAGE}.params.{name}", value)
    project.set(f"{STAGE}.recipe", {"steps": [WARM_UP, JOINT]})
    project.commit("a longer training")
    project.repro("PrepareData")
    return project


def kill_all(project: Project, process: Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_training(project: Project, process: Process) -> None:
    training_of(project).kill()
    assert "exited with -9" in process.communicate()[0]


def kill_dvc(project: Project, process: Process) -> None:
    """Kill DVC; its orphan trains on, until it is killed, too."""
    process.kill()
    process.wait()
    orphan = training_of(project)
    wait_for_steps(project, steps_saved(project) + 3)
    orphan.kill()


def press_ctrl_c(project: Project, process: Process) -> None:
    os.killpg(process.pid, signal.SIGINT)
    assert "exited with 130" in process.communicate()[0]


def terminate_training(project: Project, process: Process) -> None:
    training_of(project).terminate()
    assert "exited with 143" in process.communicate()[0]


def outs(project: Project) -> list[bytes]:
    return [(project.path / path).read_bytes() for path in OUTS]


def recorded(project: Project, *names: str) -> list[dict]:
    folder = project.path / "nodes" / STAGE / "record"
    texts = [(folder / f"{name}.jsonl").read_text() for name in names]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def content(lines: list[dict]) -> list[dict]:
    """Leave out what differs between two sessions that do the same."""
    return [{**line, "timestamp": "", "session_id": ""} for line in lines]


def test_a_training_killed_at_random_ends_as_one_that_was_not(long):
    long.repro(STAGE)
    whole, epochs = outs(long), recorded(long, "epochs")
    batches = recorded(long, "warm_up", "joint")
    assert [line["global_step"] for line in batches] == [*range(1, N_STEPS + 1)]

    chosen = random.Random(1)
    kills = [*itertools.islice(itertools.cycle([kill_training, kill_dvc, kill_all]), N_KILLS)]
    ways = [*kills, press_ctrl_c, terminate_training]
    steps = sorted(chosen.sample(range(1, N_STEPS - 50), len(ways)))
    for step, end in zip(steps, chosen.sample(ways, len(ways)), strict=True):
        with killed(start(long, *REPRO)) as process:
            wait_for_steps(long, max(step, steps_saved(long) + 1), process)
            end(long, process)
    assert 0 < steps_saved(long) < N_STEPS
    assert long.run("jemtrack", "scratch").endswith(", serves\n")
    with killed(start(long, *REPRO)) as process:
        wait_for_steps(long, steps_saved(long) + 1, process)
        process.kill()
        process.wait()
        # The orphan trains to its end, and leaves to this one what it has reached.
        said = long.run(*REPRO)

    assert "goes on at phase joint (2/2), epoch 7, batch 1; done before: warm_up" in said
    assert outs(long) == whole
    assert content(recorded(long, "warm_up", "joint")) == content(batches)
    assert content(recorded(long, "epochs")) == content(epochs)
    run = recorded(long, "run")
    starts = [line for line in run if line["event"] == "run_start"]
    assert len({line["session_id"] for line in starts}) == len(starts) == len(ways) + 2
    assert len({line["run_id"] for line in starts}) == 1
    statuses = [line["status"] for line in run if line["event"] == "run_end"]
    assert statuses == ["aborted", "aborted", "success", "success"]
    assert not list((long.path / ".jemtrack").glob(f"{STAGE}-*"))


def test_other_parameters_start_afresh_and_the_first_still_goes_on(long):
    with killed(start(long, *REPRO)) as process:
        wait_for_steps(long, 20, process)
    first = steps_saved(long)

    steps = long.read("params.yaml")[STAGE]["recipe"]["steps"]
    long.set(f"{STAGE}.recipe.steps", steps[1:])
    assert "goes on at" not in long.run("dvc", "repro", STAGE)
    long.set(f"{STAGE}.recipe.steps", steps)
    assert steps_saved(long) == first
    assert "goes on at" in long.run("dvc", "repro", STAGE)
