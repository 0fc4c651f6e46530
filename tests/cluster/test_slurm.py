"""`jemtrack run --on` a real Slurm of two nodes, whose jobs are cancelled and killed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from killing import killed, start, wait_until
from project import Project
from sleeping import JOINT, alive, independent, ran, sleeping_project
from slurm import jobs, slurm, told

ROOT = Path(__file__).parents[2]
CLUSTER = {
    "type": "slurm",
    "jobs": 2,
    # Nodes of one machine: each takes half of what it is said to have.
    "options": {"cores": 2, "memory": "1GB", "walltime": "00:10:00", "interface": "lo"},
}


@pytest.fixture(scope="module", autouse=True)
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slurm(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = sleeping_project(tmp_path / "project", independent(4, seconds=5))
    text = yaml.safe_dump({"clusters": {"slurm": CLUSTER}})
    (project.path / "jemtrack.yaml").write_text(text)
    return project


def test_cancelled_and_killed_jobs_are_replaced(project, tmp_path):
    alone = sleeping_project(tmp_path / "alone", independent(4, seconds=5))
    alone.run("jemtrack", "run", "--workers", "4")
    with killed(start(project, "jemtrack", "run", "--on", "slurm")) as process:
        wait_until(lambda: len(ran(project)) == 2, process)
        nodes = told("squeue", "-h", "-t", "running", "-o", "%N").split()
        below = stages(project)
        told("scancel", jobs("running")[0])
        wait_until(lambda: len(ran(project)) >= 4, process)
        for each in stages(project)[:1]:
            each.parent().kill()
        output = process.communicate()[0]

    assert process.returncode == 0, output
    assert sorted(nodes) == ["n1", "n2"]
    assert not alive(below)
    assert "restored 5 stages, ran none in the project itself" in output
    assert len(ran(project)) > 5
    assert (project.path / "dvc.lock").read_text() == (alone.path / "dvc.lock").read_text()
    assert project.repro() == []
    wait_until(lambda: not jobs())


def test_the_coordinator_is_a_job_itself(project):
    (project.path / "cluster").mkdir()
    shutil.copy(ROOT / "cluster" / "slurm.sh", project.path / "cluster")
    (project.path / ".venv" / "bin").mkdir(parents=True)
    (project.path / ".venv" / "bin" / "activate").write_text(
        f"export PATH={project.environment['PATH']} PYTHONPATH={project.packages['PYTHONPATH']}\n"
    )
    told("sbatch", "cluster/slurm.sh", JOINT, cwd=project.path)
    wait_until(lambda: not jobs())

    output = next(project.path.glob("slurm-*.out")).read_text()
    assert "restored 5 stages, ran none in the project itself" in output


def stages(project: Project) -> list[psutil.Process]:
    """List the processes that lead the stages of the project."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        named = "jemtrack.project.workers.stage_process" in (process.info["cmdline"] or ())
        if named and project.path in Path(process.info["cwd"] or "/").parents:
            found.append(process)
    return found
