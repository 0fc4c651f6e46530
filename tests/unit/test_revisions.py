"""Files of a commit, read where they lie."""

import hashlib
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
    path = folder / "nodes" / "EvaluateX" / "tables" / "measures.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"model,depth,committed\nL1,{len(folder.parts)},{int(committed)}\n")


@pytest.mark.parametrize("name", ["HEAD", None])
def test_each_graph_of_a_project_has_its_own_files(name, project, monkeypatch):
    committed = name == "HEAD"

    assert Revision(name).metrics() == {"L1": {"depth": 0, "committed": committed}}
    other = {"L1": {"depth": 2, "committed": committed}}
    assert Revision(name, str(GRAPH)).metrics() == other
    monkeypatch.chdir(GRAPH)
    assert Revision(name).metrics() == other
    assert Revision(name, str(project)).metrics() == {"L1": {"depth": 0, "committed": committed}}


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        (Revision("nowhere"), "'nowhere' is not a commit, branch, tag or experiment"),
        (Revision("HEAD", "src"), "nodes/EvaluateX/tables/measures.csv of HEAD"),
        (Revision(None, "src"), "nodes/EvaluateX/tables/measures.csv of the workspace"),
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


STAGES = """
stages:
  Train:
    cmd: >-
      cp params.yaml model.txt; mkdir -p log; cp params.yaml log; echo '{"loss":2}' > metrics.json
    params: [Train]
    outs: [model.txt, log]
    metrics: [{metrics.json: {cache: false}}]
  Later:
    cmd: touch later.txt
    outs: [later.txt]
"""


def test_what_a_stage_made_is_found_by_its_content(project):
    Path("params.yaml").write_text("Train: {lr: 0.5}\n")
    Path("dvc.yaml").write_text(STAGES)
    with Repo() as repo:
        repo.reproduce("Train")
    content = Path("model.txt").read_bytes()
    by = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", *by, "commit", "--quiet", "--message", "trained"], check=True)
    here = Revision().stage("Train")
    Path("model.txt").unlink()
    Path("params.yaml").write_text("Train: {lr: 0.1}\n")

    committed = Revision("HEAD").stage("Train")

    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert here.artifacts == committed.artifacts
    assert committed.artifacts["model.txt"] == md5
    assert committed.metadata == {
        "params": {"lr": 0.5},
        "metrics": {"metrics.json": {"loss": 2}},
    }
    assert here.local_paths["model.txt"] == project / "model.txt"
    assert committed.local_paths["model.txt"].read_bytes() == content
    assert committed.local_paths.keys() == {"model.txt", "log"}
    assert committed.local_paths["model.txt"] == Revision().resolve(md5)
    for name, message in (
        ("Tran", "no stage 'Tran'; did you mean Train"),
        ("Later", "no result of Later: type `dvc repro Later`"),
    ):
        with pytest.raises(InputError, match=message):
            Revision("HEAD").stage(name)
    committed.local_paths["model.txt"].chmod(0o644)
    committed.local_paths["model.txt"].unlink()
    with pytest.raises(InputError, match=f"{md5} is "):
        Revision("HEAD").stage("Train")
