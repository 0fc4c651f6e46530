"""A killed experiment goes on, wherever DVC runs it."""

import re

import pytest
import yaml
from killing import (
    OUTS,
    REPRO,
    STAGE,
    killed,
    run_queue,
    start,
    steps_saved,
    train_longer,
    trainings,
    wait_for_steps,
)
from project import Project

CHANGE = ("--single-item", "--set-param", f"{STAGE}.params.sigma=0.07", STAGE)

EXPERIMENT = "refs/exps/*/*/killed"  # where DVC keeps it


@pytest.fixture
def long(reproduced: Project) -> Project:
    """A project whose trainer takes some seconds."""
    train_longer(reproduced)
    return reproduced


def digests(lock: str) -> dict[str, str]:
    """Give the digests of the stage's outs that depend on its inputs alone."""
    outs = yaml.safe_load(lock)["stages"][STAGE]["outs"]
    return {out["path"]: out["md5"] for out in outs if out["path"] in OUTS}


def ended_equal(project: Project) -> None:
    """Hold that the experiment has the outs of a training that was not killed."""
    project.set(f"{STAGE}.params.sigma", 0.07)
    # A finished training of a copy is kept: the dvc.lock here does not tell that it is recorded.
    project.run("jemtrack", "scratch", "prune", "--all")
    assert "resumes at" not in project.run(*REPRO)
    (experiment,) = project.run("git", "for-each-ref", "--format=%(objectname)", EXPERIMENT).split()
    found = digests(project.run("git", "show", f"{experiment}:dvc.lock"))
    assert found == digests((project.path / "dvc.lock").read_text())
    assert len(found) == len(OUTS)


@pytest.mark.parametrize("where", [[], ["--temp"]])
def test_a_killed_experiment_goes_on_when_it_is_run_again(long, where):
    command = ("dvc", "exp", "run", *where, "--name", "killed", *CHANGE)
    with killed(start(long, *command)) as process:
        wait_for_steps(long, 30, process)
    assert len(trainings(long)) == 1

    assert "resumes at phase" in long.run(*command)

    assert not trainings(long)
    ended_equal(long)


def is_done(project: Project) -> bool:
    return bool(re.search(r" killed .*Success", project.run("dvc", "queue", "status")))


def test_a_killed_queue_goes_on_when_the_experiment_is_queued_again(long):
    long.run("dvc", "exp", "run", "--queue", "--name", "first", *CHANGE)
    run_queue(long, until=lambda: steps_saved(long) >= 30)
    assert len(trainings(long)) == 1

    long.run("dvc", "exp", "run", "--queue", "--name", "killed", *CHANGE)
    run_queue(long, until=lambda: is_done(long))

    assert "resumes at phase" in long.run("dvc", "queue", "logs", "killed")
    assert not trainings(long)
    ended_equal(long)
