"""A copy of the project to run commands in, as a person would."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from warm_start import warm_commands

ROOT = Path(__file__).parents[2]
TRAINERS = ["XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2"]
MEASURING = ["MeasureRobustness", "DrawSamples", "EvaluateX"]  # what the trainers made
STAGES = ["PrepareData", *TRAINERS, "PrepareOutliers", *MEASURING, "Report"]
SMALL_TRAINERS = ["MaxEntropyL1", "MaxEntropyL2"]
SMALL_STAGES = ["PrepareData", *SMALL_TRAINERS, "EvaluateX"]
WORKFLOW = "src/jemtrack/workflows/default.py"
# What is of DVC, and not of science, is seen as well of half as many stages.
SMALL_GRAPH = '''

def nodes() -> list[Stage]:
    """Declare two trainers and their evaluation."""
    from jemtrack.stages.evaluate_x import EvaluateX

    prepared = PrepareData()
    trainers = [MaxEntropyL1(data=prepared.images), MaxEntropyL2(data=prepared.images)]
    models = [trainer.model for trainer in trainers]
    return [prepared, *trainers, EvaluateX(data=prepared.images, models=models)]
'''
# Before the environment's packages, for those whom no run is told by MLflow; sitecustomize.py in
# it lets a project's processes import the project's own source.
WITHOUT_MLFLOW = {"PYTHONPATH": str(Path(__file__).parent / "without_mlflow")}
COPIED = ["src", "notebooks", "pyproject.toml", ".gitignore", ".dvcignore"]

# The least that trains: a stage is over in a few seconds, most of them imports.
SMALL = {"width": 1, "n_epochs": 1, "batch_size": 256, "n_steps": 1, "threads": 1}
SMALL_EVALUATION = {
    "PrepareOutliers.params.n_images": 40,
    "MeasureRobustness.params.threads": 1,
    "DrawSamples.params.threads": 1,
    "EvaluateX.params.threads": 1,
    "MeasureRobustness.params.corruptions": ["blur"],
    "MeasureRobustness.params.n_images": 40,
    "MeasureRobustness.params.linf_radii": [],
    "MeasureRobustness.params.l2_radii": [],
    "DrawSamples.params.n_per_class": 2,
    "DrawSamples.sampler.n_steps": 1,
    "EvaluateX.params.n_resamples": 100,
}


@dataclass
class Project:
    """A project's folder, a git and DVC repository; `packages` says what its processes find.

    Its commands start warm, which is faster, but nothing to be killed by; see warm_start.py.
    """

    path: Path
    packages: Mapping[str, str] = field(default_factory=lambda: WITHOUT_MLFLOW)
    warm: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its commands: the environment's programs first, or the warm ones."""
        used = {
            "OMP_NUM_THREADS": "1",
            # Imports compiled anew in every process take longer than these trainings.
            "PYTHONDONTWRITEBYTECODE": "",
            **self.packages,
        }
        folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if self.warm:
            folders.insert(0, str(warm_commands(**used)))
        return {**os.environ, "PATH": os.pathsep.join(folders), "COLUMNS": "200", **used}

    def run(self, *command: str, fails: bool = False, env: Mapping[str, str] | None = None) -> str:
        """Run a command of the environment; give its output, and demand its success or failure."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"{command} gave {done.returncode}:\n{done.stdout}"
        return done.stdout

    def repro(self, *targets: str) -> list[str]:
        """Run `dvc repro`; name the stages that were executed, in order."""
        return re.findall(r"^Running stage '(\w+)':", self.run("dvc", "repro", *targets), re.M)

    def commit(self, message: str = "change") -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)

    def read(self, path: str) -> Any:
        """Read a JSON or YAML file."""
        text = (self.path / path).read_text()
        return json.loads(text) if path.endswith(".json") else yaml.safe_load(text)

    def set(self, key: str, value: Any) -> None:
        """Change a value of params.yaml, keys joined by dots, as an editor would."""
        content = self.read("params.yaml")
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = value
        (self.path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text in a file, in which it must stand."""
        text = (self.path / path).read_text()
        assert old in text
        (self.path / path).write_text(text.replace(old, new))


def new_project(path: Path) -> Project:
    """Copy the project and write its graph, with small parameters and the default data."""
    path.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(ROOT / name, path / name, ignore=ignored)
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, path / name)
    (path / ".dvc").mkdir()
    shutil.copytree(ROOT / ".dvc" / "plots", path / ".dvc" / "plots")
    for name in ("config", ".gitignore", "offline_plots.html"):
        shutil.copy(ROOT / ".dvc" / name, path / ".dvc" / name)
    project = Project(path)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.run("git", "config", "user.email", "nobody@example.org")
    project.run("git", "config", "user.name", "Nobody")
    project.run("jemtrack", "data", "digits")
    project.run("jemtrack", "graph")
    make_small(project, STAGES)
    project.commit("a small project")
    return project


def write_small_graph(project: Project) -> None:
    """Put the small graph in the place of the project's."""
    workflow = project.path / WORKFLOW
    workflow.write_text(workflow.read_text() + SMALL_GRAPH)
    for name in ("dvc.yaml", "params.yaml", "zntrack.json"):
        (project.path / name).unlink()
    project.run("jemtrack", "graph")
    make_small(project, SMALL_STAGES)
    project.commit("a small graph")


def make_small(project: Project, stages: Iterable[str]) -> None:
    """Give the stages of the project the least to do."""
    for trainer in {*TRAINERS} & {*stages}:
        for name, value in SMALL.items():
            project.set(f"{trainer}.params.{name}", value)
    for key, value in SMALL_EVALUATION.items():
        if key.partition(".")[0] in stages:
            project.set(key, value)
