"""The notebooks, run from top to bottom without a screen, as a reader would run them."""

import os
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from project import ROOT, WITHOUT_MLFLOW, Project

PENALTY = "src/jemtrack/jem/objectives/pseudo_huber.py"
TRAINER = "src/jemtrack/stages/max_entropy_huber.py"


@pytest.fixture(autouse=True)
def _jupyter_without_activated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the kernel's Python is the environment's; its commands are not on PATH."""
    scripts = Path(sys.executable).parent
    folders = [
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not (Path(folder) / "dvc").exists()
    ]
    assert str(scripts) not in folders
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, value in WITHOUT_MLFLOW.items():
        monkeypatch.setenv(name, value)


def execute(project: Project, name: str) -> NotebookNode:
    """Run a notebook of the project where Jupyter runs it, and show whose code it imports."""
    notebook = nbformat.read(project.path / "notebooks" / f"{name}.ipynb", as_version=4)
    whose = nbformat.v4.new_code_cell("import jemtrack\n\nprint(jemtrack.__file__)")
    notebook.cells.append(whose)
    where = {"metadata": {"path": str(project.path / "notebooks")}}
    NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where).execute()
    assert printed(whose).strip() == str(project.path / "src/jemtrack/__init__.py")
    return notebook


def cell(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if cell.id == name)


def printed(cell: NotebookNode) -> str:
    """Give the text that a cell printed and returned."""
    texts = (
        output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        for output in cell.outputs
    )
    return "".join(texts)


def shows_figure(cell: NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def test_a_trainer_is_authored_in_a_notebook(whole_reproduced: Project):
    notebook = execute(whole_reproduced, "01_author_a_trainer")

    assert "MaxEntropyHuber is defined in a notebook" in printed(cell(notebook, "refused"))
    assert all(shows_figure(cell(notebook, name)) for name in ("look", "history"))
    stages = whole_reproduced.read("dvc.yaml")["stages"]
    for name in ("MaxEntropyHuber", "MaxEntropyHuberNarrow"):
        command = f"zntrack run jemtrack.stages.max_entropy_huber.MaxEntropyHuber --name {name} "
        assert stages[name]["cmd"].startswith(command)
        assert {PENALTY, TRAINER} < set(stages[name]["deps"])
    assert not {PENALTY, TRAINER} & set(stages["EvaluateHuber"]["deps"])
    params = whole_reproduced.read("params.yaml")
    assert params["MaxEntropyHuber"]["objective"]["delta"] == 1.0
    assert params["MaxEntropyHuberNarrow"]["objective"]["delta"] == 0.1
    measured = pd.read_csv(whole_reproduced.path / "nodes/EvaluateHuber/tables/measures.csv")
    trainers = ["XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2"]
    assert [*measured["model"]] == [*trainers, "MaxEntropyHuber", "MaxEntropyHuberNarrow"]
    assert all(name in printed(cell(notebook, "compare")) for name in measured["model"])
    # What the notebook made holds, and the main job's stages were left as they were; the report
    # shows the parameters of all stages.
    assert whole_reproduced.repro() == ["Report"]
    whole_reproduced.run("jemtrack", "check")

    meets_the_projects_standards(whole_reproduced)
    a_change_of_the_penalty_reruns_its_stages_alone(whole_reproduced)


def meets_the_projects_standards(project: Project) -> None:
    project.run("ruff", "check", PENALTY, TRAINER)
    project.run("ruff", "format", "--check", PENALTY, TRAINER)
    # What is known of the libraries is kept from one run to the next, and for `make check`.
    project.run("mypy", PENALTY, TRAINER, env={"MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")})


def a_change_of_the_penalty_reruns_its_stages_alone(project: Project) -> None:
    notebook = "notebooks/01_author_a_trainer.ipynb"
    project.edit(notebook, "return self.delta**2 * (", "return 2 * self.delta**2 * (")
    exported = project.run("jemtrack", "notebook", notebook)
    assert sorted(exported.split()) == [PENALTY, TRAINER]

    *trained, evaluated = project.repro()

    assert {*trained} == {"MaxEntropyHuber", "MaxEntropyHuberNarrow"}
    assert evaluated == "EvaluateHuber"


def test_experiments_are_compared_in_a_notebook(whole_reproduced: Project):
    tracked = whole_reproduced.run("git", "ls-files", "-s")

    notebook = execute(whole_reproduced, "02_compare_experiments")

    rows = [line.split() for line in printed(cell(notebook, "table")).splitlines()]
    weak, strong = rows[1:]
    assert weak[:2] == ["weak-penalty", "0.1"]
    assert strong[:2] == ["strong-penalty", "10.0"]
    assert weak[2:] != strong[2:]
    compared = printed(cell(notebook, "diff"))
    assert all(word in compared for word in ("MaxEntropyL2", "accuracy", "strong-penalty"))
    assert all(shows_figure(cell(notebook, name)) for name in ("history", "calibration"))
    # The workspace, the experiments and what is up to date are as they were.
    assert whole_reproduced.run("git", "status", "--short") == ""
    assert whole_reproduced.run("git", "ls-files", "-s") == tracked
    assert whole_reproduced.run("dvc", "exp", "list") == ""
    assert whole_reproduced.repro() == []
