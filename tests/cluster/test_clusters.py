"""`jemtrack run --on` a real Slurm and a real Grid Engine, whose jobs are cancelled and killed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import grid_engine
import psutil
import pytest
import slurm
import yaml
from killing import killed, start, wait_until
from project import Project
from sleeping import JOINT, alive, independent, ran, sleeping_project

ROOT = Path(__file__).parents[2]
GRAPH = independent(4, seconds=5)
OPTIONS = {"cores": 2, "memory": "1GB", "walltime": "00:10:00", "interface": "lo"}


@pytest.fixture(scope="module", params=[slurm, grid_engine], ids=["slurm", "sge"])
def cluster(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    with request.param.running(tmp_path_factory.mktemp("cluster")):
        yield request.param


@pytest.fixture
def project(tmp_path: Path, cluster: ModuleType) -> Project:
    project = sleeping_project(tmp_path / "project", GRAPH)
    options = OPTIONS | cluster.OPTIONS
    here = {"type": cluster.NAME, "jobs": 2, "options": options}
    (project.path / "jemtrack.yaml").write_text(yaml.safe_dump({"clusters": {cluster.NAME: here}}))
    return project


def test_cancelled_and_killed_jobs_are_replaced(project, cluster, tmp_path):
    alone = sleeping_project(tmp_path / "alone", GRAPH)
    alone.run("jemtrack", "run", "--workers", "4")
    with killed(start(project, "jemtrack", "run", "--on", cluster.NAME)) as process:
        wait_until(lambda: len(ran(project)) == 2, process)
        below = stages(project)
        cluster.cancel(cluster.jobs()[0])
        wait_until(lambda: len(ran(project)) >= 4, process)
        wait_until(lambda: stages(project), process)
        stages(project)[0].parent().kill()
        output = process.communicate()[0]

    assert process.returncode == 0, output
    assert not alive(below)
    assert "restored 5 stages, ran none in the project itself" in output
    assert len(ran(project)) > 5
    assert (project.path / "dvc.lock").read_text() == (alone.path / "dvc.lock").read_text()
    assert project.repro() == []
    wait_until(lambda: not cluster.jobs())


def test_the_coordinator_is_a_job_itself(project, cluster):
    script = Path("cluster", f"{cluster.NAME}.sh")
    (project.path / "cluster").mkdir()
    shutil.copy(ROOT / script, project.path / script)
    (project.path / ".venv" / "bin").mkdir(parents=True)
    (project.path / ".venv" / "bin" / "activate").write_text(
        f"export PATH={project.environment['PATH']} PYTHONPATH={project.packages['PYTHONPATH']}\n"
    )
    output = cluster.submit(script, JOINT, folder=project.path)
    wait_until(lambda: not cluster.jobs())

    assert "restored 5 stages, ran none in the project itself" in output().read_text()


def stages(project: Project) -> list[psutil.Process]:
    """List the processes that lead the stages of the project."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        named = "jemtrack.project.workers.stage_process" in (process.info["cmdline"] or ())
        if named and project.path in Path(process.info["cwd"] or "/").parents:
            found.append(process)
    return found
