"""Files of a commit, read where they lie."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from jemtrack.errors import InputError
from jemtrack.project.revisions import Revision

GRAPH = Path("workflows", "mnist")
FAMILY = """
from torch import nn

class Family:
    def load(self, path):
        return {name: nn.Threshold(float(path.read_text()), 0.0) for name in ("vae", "flow")}

class Args:
    family = Family()
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two graphs, whose evaluations differ, and have changed since the commit."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    Repo.init(str(tmp_path)).close()
    for folder in (Path(), GRAPH):
        evaluate(folder, committed=True)
    by = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", *by, "commit", "--quiet", "--message", "evaluated"], check=True)
    for folder in (Path(), GRAPH):
        evaluate(folder, committed=False)
    return tmp_path


def evaluate(folder: Path, *, committed: bool) -> None:
    path = folder / "nodes" / "EvaluateX" / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"graph": folder.as_posix(), "committed": committed}))


@pytest.mark.parametrize("name", ["HEAD", None])
def test_each_graph_of_a_project_has_its_own_files(name, project, monkeypatch):
    committed = name == "HEAD"

    assert Revision(name).metrics() == {"graph": ".", "committed": committed}
    other = {"graph": "workflows/mnist", "committed": committed}
    assert Revision(name, str(GRAPH)).metrics() == other
    monkeypatch.chdir(GRAPH)
    assert Revision(name).metrics() == other
    assert Revision(name, str(project)).metrics() == {"graph": ".", "committed": committed}


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        (Revision("nowhere"), "'nowhere' is not a commit, branch, tag or experiment"),
        (Revision("HEAD", "src"), "nodes/EvaluateX/metrics.json of HEAD"),
        (Revision(None, "src"), "nodes/EvaluateX/metrics.json of the workspace"),
        (Revision("HEAD", "/"), "/ is not in a DVC project"),
    ],
)
def test_what_cannot_be_read_is_named(revision, said, project):
    (project / "src").mkdir()

    with pytest.raises(InputError, match=said):
        revision.metrics()


def test_models_are_loaded_by_the_family_that_the_parameters_name(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    (project / "family_of_two.py").write_text(FAMILY)
    Path("params.yaml").write_text("{Two: {params: {_cls: family_of_two.Args}}, Other: {}}")
    model = Path("nodes", "Two", "model.safetensors")
    model.parent.mkdir()
    model.write_text("0.5")

    models = Revision().models("Two")

    assert [(name, each.threshold, each.training) for name, each in models.items()] == [
        ("vae", 0.5, False),
        ("flow", 0.5, False),
    ]
    assert Revision().model("Two").threshold == 0.5
    for name in ("Other", "EvaluateX"):
        shutil.copytree(model.parent, Path("nodes", name), dirs_exist_ok=True)
        with pytest.raises(InputError, match=f"{name} is no stage that trains a family"):
            Revision().models(name)
