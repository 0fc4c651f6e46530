"""A project of one's own: `jemtrack init`, with the wheel and nothing else of this repository."""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
import yaml
from killing import killed, start, trainings, wait_for_steps
from project import ROOT, SMALL, SMALL_EVALUATION, Project

from jemtrack import __version__

STAGE = "MaxEntropyQuartic"
QUARTIC = '''"""Maximum entropy by the fourth power of the deviations."""

import zntrack
from jemtrack.jem.objectives.max_entropy import MaxEntropyObjective
from jemtrack.parameters import parameters
from jemtrack.stages.trainer import Trainer
from torch import Tensor

POWER = 4


@parameters
class Quartic(MaxEntropyObjective):
    """CE + `entropy_weight` * R over i of (m - log p~(x_i))^4."""

    def spread(self, deviation_B: Tensor) -> Tensor:
        """Compute the penalty of each deviation, (B,)."""
        return deviation_B**POWER


class MaxEntropyQuartic(Trainer):
    """Train a classifier whose p~(x) has a high entropy over the data: quartic deviations."""

    objective: Quartic = zntrack.deps(default_factory=Quartic)
'''
MINUTES = 10  # that a queue may take on a busy machine
MEASURING = ["MeasureRobustness", "DrawSamples", "EvaluateX", "Report"]


@dataclass
class OwnProject(Project):
    """A project whose commands find the programs of a virtual environment, and no checkout."""

    programs: Path = field(default=Path())

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a terminal in which the environment is active, 80 columns wide."""
        ours = str(Path(sys.executable).parent)
        others = [path for path in os.environ["PATH"].split(os.pathsep) if path != ours]
        kept = {name: os.environ[name] for name in os.environ if not name.startswith("PYTHON")}
        path = os.pathsep.join([str(self.programs), *others])
        return {**kept, "PATH": path, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}"]
    subprocess.run([*build, ROOT], check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The programs of a virtual environment with the wheel."""
    environment = tmp_path_factory.mktemp("installed")
    ours = Path(sys.executable).parent
    subprocess.run(
        [ROOT / ".ci" / "install_wheel", wheel, environment],
        check=True,
        env={**os.environ, "PATH": f"{ours}{os.pathsep}{os.environ['PATH']}"},
    )
    (environment / "bin" / "ruff").symlink_to(ours / "ruff")
    return environment / "bin"


def make_small(project: Project, *trainers: str) -> None:
    for trainer in trainers:
        for name, value in SMALL.items():
            project.set(f"{trainer}.params.{name}", value)


def add_quartic(project: Project) -> None:
    """Write a penalty with its trainer into a file of its own, as docs/own_project.md has it."""
    (project.path / "src" / "demo" / "quartic.py").write_text(QUARTIC)
    workflow = "src/demo/workflow.py"
    project.edit(
        workflow,
        "from demo.stages import MaxEntropyHuber",
        f"from demo.quartic import {STAGE}\nfrom demo.stages import MaxEntropyHuber",
    )
    last = "        MaxEntropyHuber(data=prepared.images, params=small),\n"
    project.edit(workflow, last, f"{last}{last.replace('MaxEntropyHuber', STAGE)}")
    project.run("jemtrack", "graph")


def deps_in_source(project: Project, stage: str) -> list[str]:
    deps = project.read("dvc.yaml")["stages"][stage]["deps"]
    return [path for path in deps if path.startswith("src/")]


def test_a_project_of_one_s_own_trains_resumes_and_queues(tmp_path: Path, programs: Path) -> None:
    """What docs/own_project.md tells, from an empty folder on."""
    empty = OwnProject(tmp_path, programs=programs)
    said = empty.run("jemtrack", "init", "demo")
    assert "cd demo" in said
    assert "make repro" in said
    assert max(map(len, said.splitlines())) <= 80
    where = empty.run("python", "-c", "import jemtrack; print(jemtrack.__file__)")
    assert Path(where.strip()).is_relative_to(programs.parent)

    project = OwnProject(tmp_path / "demo", programs=programs)
    project.run("git", "config", "user.email", "nobody@example.org")
    project.run("git", "config", "user.name", "Nobody")
    make_small(project, "XEntropyAugmented", "MaxEntropyHuber")
    for key, value in SMALL_EVALUATION.items():
        project.set(key, value)

    # The graph runs, and what else the Makefile has.
    project.run("make", "repro")
    assert "MaxEntropyHuber" in (project.path / "nodes/Report/report.html").read_text()
    project.run("make", "test", "check")
    versions = project.read("versions.yaml")
    assert versions["jemtrack"] == __version__
    assert deps_in_source(project, "MaxEntropyHuber") == [
        "src/demo/objectives.py",
        "src/demo/stages.py",
    ]
    assert deps_in_source(project, "EvaluateX") == []
    assert project.repro() == []
    project.commit("First results")

    # A penalty of one's own becomes a stage, is killed and resumes.
    add_quartic(project)
    make_small(project, STAGE)
    project.set(f"{STAGE}.params.batch_size", 16)
    project.run("jemtrack", "check")
    assert deps_in_source(project, STAGE) == ["src/demo/quartic.py"]
    with killed(start(project, "dvc", "repro")) as process:
        wait_for_steps(project, 20, process)
    assert len(trainings(project)) == 1
    assert re.search(rf"{STAGE} .*resumable", project.run("jemtrack", "scratch"))
    said = project.run("dvc", "repro")
    assert re.findall(r"^Running stage '(\w+)'", said, re.M) == [STAGE, *MEASURING]
    assert "resumes at phase" in said
    resumed = project.read(f"nodes/{STAGE}/metrics.json")
    project.run("dvc", "repro", "--force", "--single-item", STAGE)
    assert project.read(f"nodes/{STAGE}/metrics.json") == resumed
    project.commit("A quartic penalty")

    # Experiments run the code as it was, even if an editable install leads to the checkout.
    (packages,) = programs.parent.glob("lib/*/site-packages")
    (packages / "editable.pth").write_text(f"{project.path / 'src'}\n")
    project.edit("src/demo/quartic.py", "POWER = 4", "POWER = 2")
    project.run("dvc", "exp", "run", "--queue", "--name", "power")
    project.edit("src/demo/quartic.py", "POWER = 2", "raise RuntimeError('of today')")
    finish_queue(project)
    project.run("git", "restore", "src/demo/quartic.py")
    change = ("-S", f"{STAGE}.params.lr=1e-5", "--single-item", STAGE)
    project.run("dvc", "exp", "run", "--temp", "--name", "slow", *change)
    listed = project.run("jemtrack", "exps")
    assert all(re.search(rf"^\W*{name}\b", listed, re.M) for name in ("power", "slow"))
    assert STAGE in project.run("jemtrack", "compare", "HEAD", "power")
    changed = project.run("dvc", "metrics", "diff", "HEAD", "power", "--json")
    assert f"nodes/{STAGE}/metrics.json" in changed

    # Another version of the library makes all stages stale, once the graph is written.
    (metadata,) = packages.glob("jemtrack-*.dist-info/METADATA")
    metadata.write_text(
        metadata.read_text().replace(f"\nVersion: {__version__}", "\nVersion: 99.0")
    )
    assert "versions.yaml: jemtrack is" in project.run("jemtrack", "check", fails=True)
    project.run("jemtrack", "graph")
    stale = yaml.safe_load(project.run("dvc", "status", "--json").splitlines()[-1])
    assert {*stale} == {*project.read("dvc.yaml")["stages"]}


def finish_queue(project: Project) -> None:
    """Run what is queued, and wait for it."""
    deadline = time.monotonic() + 60 * MINUTES
    with killed(start(project, "dvc", "queue", "start")):
        while " Success" not in (status := project.run("dvc", "queue", "status")):
            assert "Failed" not in status, project.run("dvc", "queue", "logs", "power")
            assert time.monotonic() < deadline, status
            time.sleep(2)


def test_its_notebook_runs(tmp_path: Path, programs: Path) -> None:
    OwnProject(tmp_path, programs=programs).run("jemtrack", "init", "demo")
    project = OwnProject(tmp_path / "demo", programs=programs)
    path = project.path / "notebooks" / "try_a_penalty.ipynb"
    path.write_text(path.read_text().replace("n_epochs=5", "n_epochs=1, threads=1, batch_size=256"))

    project.run(
        *("python", "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace"),
        str(path),
    )

    assert (project.path / "src" / "demo" / "cubic.py").exists()
    assert project.read("nodes/MaxEntropyCubic/metrics.json")["valid_nll"] > 0
    outputs = [cell.outputs for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert "image/png" in outputs[-1][-1].data
