"""`jemtrack sweep`: trials are experiments of DVC, side by side, whatever is killed."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from killing import killed, start, wait_until
from project import Project
from sleeping import ran, sleeping_project, stage

TRAIN = """
import json
import os
import time
from pathlib import Path

import yaml

chosen = yaml.safe_load(Path("params.yaml").read_text())["Train"]["params"]
with Path(os.environ["JEMTRACK_ROOT"], "starts").open("a") as starts:
    starts.write(f"{chosen['lr']} {Path.cwd().name} {time.time()}\\n")
with Path("history.csv").open("w", buffering=1) as history:
    history.write("epoch,valid_nll\\n")
    for epoch in range(5):
        history.write(f"{epoch + 1},{chosen['lr'] + 1 / (epoch + 1)}\\n")
        time.sleep(chosen["seconds"] / 5)
Path("metrics.json").write_text(json.dumps({"valid_nll": chosen["lr"] + 0.2}))
"""
TRAINER = {
    "cmd": "python train.py",
    "deps": ["train.py", "data.out"],
    "params": ["Train"],
    "outs": ["history.csv"],
    "metrics": [{"metrics.json": {"cache": False}}],
}
METRIC = ("--metric", "metrics.json:valid_nll")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = sleeping_project(tmp_path / "project", {"Data": stage("data", 0), "Train": TRAINER})
    (project.path / "train.py").write_text(TRAIN)
    (project.path / "params.yaml").write_text("Train:\n  params: {lr: 0.5, seed: 1, seconds: 1}\n")
    project.commit("a trainer")
    return project


def experiments(project: Project) -> dict[str, float]:
    """Give the measure of each experiment that DVC lists."""
    (_, head) = json.loads(project.run("dvc", "exp", "show", "--json"))
    return {
        each["name"]: each["revs"][0]["data"]["metrics"]["metrics.json"]["data"]["valid_nll"]
        for each in head["experiments"] or ()
    }


def test_each_combination_is_an_experiment_and_a_killed_sweep_resumes(project):
    project.set("Train.params.seconds", 3)  # an edit that no commit has
    command = ("jemtrack", "sweep", "-S", "Train.params.lr=0.1,0.2,0.3", *METRIC, "--workers", "2")
    before = project.run("git", "diff")
    with killed(start(project, *command)) as process:
        wait_until(lambda: len({*ran(project)} - {"data"}) == 2, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert experiments(project) == {}

    output = project.run(*command)

    assert "3 trials to run on 2 workers" in output
    assert "sweep: 3 trials done, 0 pruned; the best is sweep-0 with valid_nll 0.3" in output
    found = experiments(project)
    assert found == pytest.approx({"sweep-0": 0.3, "sweep-1": 0.4, "sweep-2": 0.5})
    assert project.run("git", "diff") == before
    assert "0 trials to run" in project.run(*command)
    project.run("dvc", "exp", "apply", "sweep-1")
    assert project.read("params.yaml")["Train"]["params"] == {"lr": 0.2, "seed": 1, "seconds": 3}


def test_optuna_chooses_as_many_trials_as_are_asked_for(project):
    project.set("Train.params.seconds", 0)
    chosen = ("-S", "Train.params.lr=interval(0.1,0.9)", *METRIC, "--workers", "2")

    output = project.run("jemtrack", "sweep", "--trials", "6", "--name", "lr", *chosen)

    done, pruned = map(int, re.search(r"lr: (\d) trials done, (\d) pruned", output).groups())
    assert done + pruned == 6
    assert len(experiments(project)) == done
    assert all(0.3 <= value <= 1.1 for value in experiments(project).values())
    assert "1 trials to run" in project.run(
        "jemtrack", "sweep", "--trials", "7", "--name", "lr", *chosen
    )


def test_seeds_run_side_by_side_and_what_fails_is_told(project):
    project.edit(
        "train.py", "with Path(", "assert chosen['seed'] != 2, 'this seed fails'\nwith Path("
    )

    output = project.run("jemtrack", "sweep", "--seeds", "2", fails=True)

    assert "Train.params.seed=1" in output
    assert "sweep-1 failed with status 1" in output
    assert "this seed fails" in output
    assert [*experiments(project)] == ["sweep-0"]
