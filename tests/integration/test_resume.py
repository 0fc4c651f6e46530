"""A killed training goes on, though DVC deletes the outs of a stage before it runs it."""

import json
import os
import re
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from killing import (
    N_STEPS,
    OUTS,
    REPRO,
    STAGE,
    Process,
    killed,
    reached,
    start,
    steps_saved,
    train_longer,
    training_of,
    trainings,
    wait_for_steps,
    wait_until,
)
from project import Project

OBJECTIVE = "src/jemtrack/jem/objectives/max_entropy_l2.py"
Way = Callable[[Project, Process], None]


@pytest.fixture
def long(reproduced: Project) -> Project:
    """A project whose trainer takes some seconds."""
    train_longer(reproduced)
    return reproduced


def kill_all(project: Project, process: Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_training(project: Project, process: Process) -> None:
    training_of(project).kill()
    # By a shell that waits for the command, as dash does, instead of becoming it: 137.
    assert re.search(r"exited with (-9|137)$", process.communicate()[0], re.M)


def kill_dvc(project: Project, process: Process) -> None:
    """Kill DVC; its orphan trains on, until it is killed, too."""
    process.kill()
    process.wait()
    wait_for_steps(project, steps_saved(project) + 3)
    training_of(project).kill()


def fill_the_disk(project: Project, process: Process) -> None:
    """Let the training write no more bytes, as on a full disk."""
    resource.prlimit(training_of(project).pid, resource.RLIMIT_FSIZE, (0, 0))
    output = process.communicate()[0]
    assert re.search(r"File too large; step \d+ is saved: `dvc repro`", output), output


def press_ctrl_c(project: Project, process: Process) -> None:
    os.killpg(process.pid, signal.SIGINT)
    # Such a shell is interrupted, too: -2.
    output = process.communicate()[0]
    assert re.search(r"exited with (130|-2)$", output, re.M)
    assert re.search(r"ended by SIGINT; step \d+ is saved: `dvc repro`", output)


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


def ends_as_one_that_was_not(project: Project, ways: Mapping[int, Way]) -> None:
    """Kill a training in these ways, each after so many of its steps, and let it end."""
    project.repro("--single-item", STAGE)
    whole, epochs = outs(project), recorded(project, "epochs")
    batches = recorded(project, "warm_up", "joint")
    assert [line["global_step"] for line in batches] == [*range(1, N_STEPS + 1)]

    for step, end in ways.items():
        with killed(start(project, *REPRO)) as process:
            wait_for_steps(project, max(step, steps_saved(project) + 1), process)
            end(project, process)
    assert project.run("jemtrack", "scratch").split()[-1] == "resumable"
    with killed(start(project, *REPRO)) as process:
        wait_for_steps(project, steps_saved(project) + 1, process)
        process.kill()
        process.wait()
        # The orphan trains to its end, and leaves to this one what it has reached.
        said = project.run(*REPRO)

    assert "resumes at phase joint (2/2), epoch 5, batch 1; done before: warm_up" in said
    assert outs(project) == whole
    assert content(recorded(project, "warm_up", "joint")) == content(batches)
    assert content(recorded(project, "epochs")) == content(epochs)
    run = recorded(project, "run")
    starts = [line for line in run if line["event"] == "run_start"]
    assert len({line["session_id"] for line in starts}) == len(starts) == len(ways) + 2
    assert len({line["run_id"] for line in starts}) == 1
    statuses = [line["status"] for line in run if line["event"] == "run_end"]
    told = [end for end in ways.values() if end in (press_ctrl_c, terminate_training)]
    assert statuses == [*("aborted" for _ in told), "success", "success"]
    assert not trainings(project)


def test_a_training_killed_in_every_way_ends_as_one_that_was_not(long):
    """At random, and by the dozen: `make soak`."""
    ways = {20: kill_training, 55: kill_dvc, 75: fill_the_disk, 90: press_ctrl_c, 120: kill_all}

    ends_as_one_that_was_not(long, ways)


def begin(project: Project) -> Path:
    """Begin a training that was not there, and kill it; give its folder."""
    before = trainings(project)

    def begun() -> list[Path]:
        return [path for path in trainings(project) if path not in before and reached(path)]

    with killed(start(project, "dvc", "repro", STAGE)) as process:
        wait_until(lambda: bool(begun()), process)
    return begun()[0]


def test_other_parameters_data_or_code_start_afresh_and_the_first_still_goes_on(long):
    first = begin(long)
    before = reached(first)
    steps = long.read("params.yaml")[STAGE]["recipe"]["steps"]
    edits = {
        "recipe.steps": lambda: long.set(f"{STAGE}.recipe.steps", steps[1:]),
        "nodes/PrepareData/images.safetensors": lambda: long.set("PrepareData.params.seed", 7),
        OBJECTIVE: lambda: long.edit(OBJECTIVE, "square()", "pow(2)"),
    }
    for name, edit in edits.items():
        edit()
        begin(long)
        (line,) = [
            line
            for line in long.run("jemtrack", "scratch", "--keys").splitlines()
            if first.name.rpartition("-")[2] in line
        ]
        assert name in line.partition("not resumable: ")[2]
    assert len(trainings(long)) == 4

    long.run("git", "checkout", "--", "params.yaml", "src")
    assert reached(first) == before
    assert "resumes at" in long.run("dvc", "repro", STAGE)
    assert first not in trainings(long)
    assert "removed" in long.run("jemtrack", "scratch", "prune")
    assert not first.exists()
    assert not trainings(long)
