"""`jemtrack run`: stages side by side in clones, whatever is killed or edited meanwhile."""

import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from killing import (
    STAGE,
    killed,
    start,
    train_longer,
    training_of,
    trainings,
    wait_for_steps,
    wait_until,
)
from project import Project
from sleeping import JOINT, alive_after, independent, ran, sleeping_project, stage, times

RUN = ("jemtrack", "run", "--workers", "2")


def started(project: Project, *names: str) -> None:
    wait_until(lambda: {*names} <= {*ran(project)})


def test_stages_run_side_by_side_and_the_project_runs_none(tmp_path):
    graph = independent(3, seconds=2)
    alone = sleeping_project(tmp_path / "alone", graph)
    alone.run("dvc", "repro")
    project = sleeping_project(tmp_path / "workers", graph)
    before = project.run("git", "status", "--short")

    output = project.run(*RUN)

    assert "4 stages to run on 2 workers" in output
    assert "restored 4 stages, ran none in the project itself" in output
    assert sorted(ran(project)) == [JOINT, "s0", "s1", "s2"]
    starts, ends = times(project, "starts"), times(project, "ends")
    assert starts["s1"] < ends["s0"]
    assert starts[JOINT] > max(ends[name] for name in ("s0", "s1", "s2"))
    assert (project.path / "dvc.lock").read_text() == (alone.path / "dvc.lock").read_text()
    assert project.repro() == []
    assert project.run("git", "status", "--short") == before + "?? dvc.lock\n"
    assert "nothing to run" in project.run(*RUN)


def test_a_failure_stops_only_what_waits_for_it(tmp_path):
    follows = {"after": stage("after", 0, [JOINT])}
    project = sleeping_project(tmp_path / "project", independent(2, seconds=0) | follows)
    (project.path / "fail").write_text("s0")

    output = project.run(*RUN, fails=True)

    assert "s0 failed with status 1" in output
    assert "  s0 was told to fail" in output
    assert f"not run, because of what failed: {JOINT}, after" in output
    assert project.path.joinpath("s1.out").exists()
    (project.path / "fail").unlink()
    assert "3 stages to run" in project.run(*RUN)
    assert ran(project).count("s1") == 1


def test_workers_run_the_edits_that_no_commit_has_and_an_edit_meanwhile_is_told(tmp_path):
    project = sleeping_project(tmp_path / "project", independent(1, seconds=3))
    edited = project.path / "stage.py"
    before = edited.read_text()
    edited.write_text(before + "\nPath(f'{name}.out').write_text('edited')\n")
    with killed(start(project, *RUN)) as process:
        started(project, "s0")
        edited.write_text(before)
        output = process.communicate()[0]

    assert process.returncode == 1
    assert f"s0, {JOINT}: stage.py changed while the workers ran" in output
    assert not (project.path / "s0.out").exists()
    assert len(ran(project)) == 2  # nothing has run in the project itself
    edited.write_text(before + "\nPath(f'{name}.out').write_text('edited')\n")
    assert "restored 2 stages" in project.run(*RUN)
    assert (project.path / "s0.out").read_text() == "edited"
    assert len(ran(project)) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_stage_survives_its_coordinator(number, tmp_path):
    project = sleeping_project(tmp_path / "project", independent(2, seconds=20))
    with killed(start(project, *RUN)) as process:
        started(project, "s0", "s1")
        below = psutil.Process(process.pid).children(recursive=True)
        assert len(below) >= 4
        os.kill(process.pid, number)
        assert not alive_after(3, below)
        output = process.communicate(timeout=20)[0]

    if number == signal.SIGKILL:
        return
    assert process.returncode == 128 + number
    assert "stopped s0, s1: the same command resumes" in output


def test_a_killed_training_resumes_to_the_same_bytes(project: Project, tmp_path: Path):
    train_longer(project)
    whole = Project(tmp_path / "whole")
    project.run("git", "clone", "--quiet", ".", str(whole.path))
    whole.run("dvc", "config", "--local", "cache.dir", str(tmp_path / "cache"))
    whole.run("jemtrack", "data", "digits")
    whole.run("dvc", "repro", STAGE)

    with killed(start(project, *RUN, STAGE)) as process:
        wait_for_steps(project, 20, process)
        training_of(project).kill()
        output = process.communicate()[0]

    assert process.returncode == 0, output
    assert f"{STAGE}: was killed, runs again" in output
    log = (project.path / f".jemtrack/workers/logs/{STAGE}.log").read_text()
    assert "resumes at" in log
    assert digests(project) == digests(whole)
    assert project.repro(STAGE) == []
    assert not trainings(project)


def digests(project: Project) -> dict[str, str]:
    """Give what dvc.lock says of all outs but those with times and names of their own."""
    stages = project.read("dvc.lock")["stages"]
    outs = {out["path"]: out["md5"] for entry in stages.values() for out in entry["outs"]}
    volatile = re.compile(r"/(record|resources\.json|node-meta\.json|report\.html)$")
    return {path: md5 for path, md5 in outs.items() if not volatile.search(path)}
