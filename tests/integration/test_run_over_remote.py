"""`jemtrack run` on machines that share no disk: results go over a DVC remote, a folder or S3."""

from pathlib import Path

import psutil
import pytest
import yaml
from killing import killed, start, wait_until
from project import Project
from sleeping import alive_after, sleeping_project, stage
from test_run_on_cluster import credentials, dask, is_stage

METRICS = {
    "cmd": "cat a.out > b.out; echo '{\"n\": 1}' > metrics.json",
    "deps": ["a.out"],
    "outs": ["b.out"],
    "metrics": [{"metrics.json": {"cache": False}}],
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose remotes of git and of DVC are folders, with nothing pushed."""
    graph = {"a": stage("a", 1), "b": METRICS, "c": stage("c", 1, ["b"])}
    project = sleeping_project(tmp_path / "project", graph)
    project.run("git", "init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    project.run("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    project.run("dvc", "remote", "add", "shared", str(tmp_path / "remote"))
    project.commit("remotes")
    return project


def on_remote(project: Project, address: str) -> Path:
    """Write jemtrack.yaml; return the folder of the machine's own."""
    folder = project.path.parent / "machine"
    cluster = {"type": "address", "address": address, "remote": "shared", "folder": str(folder)}
    (project.path / "jemtrack.yaml").write_text(yaml.safe_dump({"clusters": {"far": cluster}}))
    return folder / "project"


def test_uncached_metrics_come_over_the_remote_and_nothing_runs_twice(project, tmp_path):
    settings = credentials(tmp_path / "tls")
    with dask(project, settings, n_workers=1):
        folder = on_remote(project, project.read("../scheduler.json")["address"])
        told = Project(project.path, {**project.packages, **settings}, warm=False)
        output = told.run("jemtrack", "run", "--on", "far")
        assert "restored 3 stages, ran none in the project itself" in output
        assert project.read("metrics.json") == {"n": 1}
        assert project.repro() == []

        starts = folder / "project" / "starts"
        before = starts.read_text()
        assert len(before.splitlines()) == 2  # a and c, not where the project is
        assert not (project.path / "starts").exists()
        other = Project(tmp_path / "other")
        project.commit("results")
        project.run("git", "clone", "--quiet", ".", str(other.path))
        other.run("git", "checkout", "--quiet", "HEAD~1")  # before dvc.lock
        other.run("dvc", "config", "--local", "core.remote", "shared")
        assert "Running stage" not in other.run("dvc", "repro", "--pull")


@pytest.mark.parametrize("who", ["coordinator", "scheduler"])
def test_no_stage_survives_who_wants_it(who, project, tmp_path):
    project.edit("dvc.yaml", "stage.py a 1", "stage.py a 60")
    project.commit("a long stage")
    settings = credentials(tmp_path / "tls")
    with dask(project, settings, n_workers=1) as (scheduler, _):
        folder = on_remote(project, project.read("../scheduler.json")["address"])
        told = Project(project.path, {**project.packages, **settings}, warm=False)
        with killed(start(told, "jemtrack", "run", "--on", "far")) as process:
            wait_until((folder / "project" / "starts").exists, process)
            running = [each for each in psutil.process_iter() if is_stage(each, folder)]
            below = [each for one in running for each in [one, *one.children(recursive=True)]]
            assert len(below) > 1
            psutil.Process(process.pid if who == "coordinator" else scheduler).kill()
            assert not alive_after(5, below)
