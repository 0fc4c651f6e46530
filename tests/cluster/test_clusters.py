"""`jemtrack run --on` a real Slurm and a real Grid Engine, whose jobs are killed in all ways."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import grid_engine
import psutil
import pytest
import slurm
import yaml
from killing import (
    N_STEPS,
    STAGE,
    Process,
    killed,
    reached,
    start,
    steps_saved,
    train_longer,
    wait_until,
)
from project import Project
from sleeping import alive, independent, ran, sleeping_project
from test_run import digests

ROOT = Path(__file__).parents[2]
OPTIONS = {"cores": 2, "memory": "1GB", "walltime": "00:10:00", "interface": "lo"}
LONGER = 4  # a training of 720 steps, killed four times in its first half


@pytest.fixture(scope="class")
def cluster(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    with request.cls.module.running(tmp_path_factory.mktemp("cluster")):
        yield request.cls.module


def name_cluster(project: Project, cluster: ModuleType, jobs: int = 2, **options: object) -> None:
    """Write jemtrack.yaml, with the cluster and what its jobs ask for."""
    here = {
        "type": cluster.NAME,
        "jobs": jobs,
        "options": {**OPTIONS, **cluster.OPTIONS, **options},
    }
    settings = {"checkpoint_seconds": 0, "clusters": {cluster.NAME: here}}
    (project.path / "jemtrack.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture(scope="class")
def over_its_limit(cluster, tmp_path_factory) -> Iterator[tuple[Project, Process]]:
    """A run whose job reaches its time limit, while the other tests run."""
    path = tmp_path_factory.mktemp("limit") / "project"
    project = sleeping_project(path, independent(1, seconds=600))
    project.edit(
        "stage.py", "time.sleep(float(seconds))", "time.sleep(0 if again else float(seconds))"
    )
    project.edit("stage.py", "with (here", "again = (here / 'starts').exists()\nwith (here")
    project.commit("the first start takes long")
    name_cluster(project, cluster, jobs=1, **cluster.LIMIT)
    with killed(start(project, "jemtrack", "run", "--on", cluster.NAME)) as process:
        yield project, process


@pytest.fixture(scope="module")
def alone(once: Callable[..., Path], _project: Path) -> Project:
    """The graph of a longer training, run by threads on this machine."""

    def make(path: Path) -> None:
        shutil.copytree(_project, path, symlinks=True)
        train_longer(Project(path), LONGER)
        Project(path).run("jemtrack", "run", "--workers", "2")

    return Project(once("alone", make))


def kill_in_training(
    project: Project, process: Process, steps: int, kill: Callable[[psutil.Process], None]
) -> None:
    """Kill when the training has come so far; nothing of its stage may run to its end."""
    leaders: list[psutil.Process] = []

    def has_come_so_far() -> bool:
        leaders[:] = leader_of(project)
        return bool(leaders) and steps_saved(project) >= steps

    wait_until(has_come_so_far, process)
    below = [leaders[0], *leaders[0].children(recursive=True)]
    kill(leaders[0])
    wait_until(lambda: not alive(below))
    (training,) = (project.path / ".jemtrack").glob(f"{STAGE}-*")
    assert reached(training) < N_STEPS * LONGER


def leader_of(project: Project) -> list[psutil.Process]:
    """Find the process, if there is one, that leads those of the longer training."""
    with contextlib.suppress(psutil.Error, OSError, ValueError):
        (lock,) = (project.path / ".jemtrack").glob(f"{STAGE}-*/lock")
        above = psutil.Process(int(lock.read_text())).parents()
        return [
            each for each in above if "jemtrack.project.workers.stage_process" in each.cmdline()
        ]
    return []


def job_of(leader: psutil.Process) -> str:
    """Give the id of the job that a stage runs in."""
    environment = leader.environ()
    return environment.get("SLURM_JOB_ID") or environment["JOB_ID"]


@pytest.mark.usefixtures("over_its_limit")
class OnCluster:
    """Each subclass runs in a process of its own, so that they wait at the same time."""

    module: ModuleType

    def test_a_training_survives_what_ends_its_jobs(self, project, cluster, request):
        """A worker killed by -9, a job cancelled, one requeued, and the coordinator killed."""
        train_longer(project, LONGER)
        name_cluster(project, cluster)
        command = ("jemtrack", "run", "--on", cluster.NAME)
        kills: list[Callable[[psutil.Process], None]] = [
            lambda leader: leader.parent().kill(),
            lambda leader: cluster.cancel(job_of(leader)),
            lambda leader: cluster.requeue(job_of(leader)),
        ]
        with killed(start(project, *command)) as process:
            for number, kill in enumerate([*kills, lambda _: process.kill()], 1):
                kill_in_training(project, process, N_STEPS * LONGER * number // 8, kill)

        output = project.run(*command)

        assert "ran none in the project itself" in output
        log = (project.path / f".jemtrack/workers/logs/{STAGE}.log").read_text()
        assert "resumes at" in log
        assert digests(project) == digests(request.getfixturevalue("alone"))
        assert project.repro() == []
        wait_until(lambda: len(cluster.jobs()) <= 1)  # that of the limit

    def test_the_coordinator_is_a_job_itself(self, tmp_path, cluster):
        project = sleeping_project(tmp_path / "project", independent(2, seconds=0))
        name_cluster(project, cluster)
        script = Path("cluster", f"{cluster.NAME}.sh")
        (project.path / "cluster").mkdir()
        shutil.copy(ROOT / script, project.path / script)
        (project.path / ".venv" / "bin").mkdir(parents=True)
        path, modules = project.environment["PATH"], project.packages["PYTHONPATH"]
        activate = project.path / ".venv" / "bin" / "activate"
        activate.write_text(f"export PATH={path} PYTHONPATH={modules}\n")
        output = cluster.submit(script, "joint", folder=project.path)
        wait_until(lambda: "restored 3 stages, ran none in the project itself" in output())

    def test_a_stage_runs_again_after_its_job_has_reached_its_limit(self, over_its_limit, cluster):
        project, process = over_its_limit
        output = process.communicate(timeout=180)[0]

        assert process.returncode == 0, output
        assert ran(project) == ["s0", "s0", "joint"]
        wait_until(lambda: not cluster.jobs())


class TestGridEngine(OnCluster):
    module = grid_engine


class TestSlurm(OnCluster):
    module = slurm

    def test_a_stage_on_two_nodes_gives_the_bytes_of_two_processes_on_one(self, project, tmp_path):
        project.set(f"{STAGE}.params.processes", 2)
        project.run("jemtrack", "graph")
        project.commit("two processes")
        alone = Project(tmp_path / "alone")
        project.run("git", "clone", "--quiet", ".", str(alone.path))
        alone.run("dvc", "config", "--local", "cache.dir", str(tmp_path / "cache"))
        alone.run("jemtrack", "data", "digits")
        alone.run("dvc", "repro", STAGE)
        project.set(f"{STAGE}.params.nodes", 2)
        directives = ["--nodes=2", "--ntasks=2"]
        name_cluster(project, slurm, job_extra_directives=directives)

        output = project.run("jemtrack", "run", STAGE, "--on", slurm.NAME)

        assert "ran none in the project itself" in output
        assert digests(project) == digests(alone)
