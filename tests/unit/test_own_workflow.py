"""The graph that a project of one's own declares, and where its package is found."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from jemtrack.commands.main import main
from jemtrack.files import find_source, search_source

WORKFLOW = """from jemtrack.stages.prepare_data import PrepareData


def nodes():
    return [PrepareData()]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A project with the package `own_study`, where `jemtrack` is installed."""
    (tmp_path / ".dvc").mkdir()
    package = tmp_path / "src" / "own_study"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "workflow.py").write_text(WORKFLOW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_study"]:
        del sys.modules[name]


def test_the_graph_is_what_the_package_declares(own, capsys):
    assert main(["graph"]) == 0

    assert {*yaml.safe_load(Path("dvc.yaml").read_text())["stages"]} == {"PrepareData"}
    assert {"jemtrack", "torch"} <= yaml.safe_load(Path("versions.yaml").read_text()).keys()
    capsys.readouterr()
    assert main(["graph"]) == 0
    assert capsys.readouterr().out == "dvc.yaml: 1 stage, nothing to change\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "own_study.workflow: ModuleNotFoundError: No module named 'own_study.workflow'"),
        ("def nodes():\n    return [Mine()]", "src/own_study/workflow.py:2: NameError: "),
        ("import own_study.mine", "src/own_study/workflow.py:1: ModuleNotFoundError: "),
        ("def nodes(:", "own_study.workflow: SyntaxError: .*workflow.py, line 1"),
        ("stages = []", "own_study.workflow: AttributeError: .*no attribute 'nodes'"),
        ("def nodes():\n    pass", r"own_study.workflow: nodes\(\) must return a list .* got None"),
        (
            "def nodes():\n    return [1]",
            r"own_study.workflow: nodes\(\) must .* stages, got \[1\]",
        ),
    ],
)
def test_a_workflow_that_declares_nothing_is_named_in_a_line(own, capsys, source, message):
    (own / "workflow.py").unlink()
    if source is not None:
        (own / "workflow.py").write_text(source)

    assert main(["graph"]) == 1

    said = capsys.readouterr().err
    assert re.match(f"jemtrack: {message}", said), said
    assert said.count("\n") == 1
    assert not Path("dvc.yaml").exists()


def test_the_source_is_that_of_the_dvc_project_around(tmp_path):
    """And of no other folder: anyone can make a src/ in /tmp."""
    deep = tmp_path / "workflows" / "seeds"
    deep.mkdir(parents=True)
    (tmp_path / "src").mkdir()
    assert find_source(deep) is None

    (tmp_path / ".dvc").mkdir()
    assert find_source(deep) == tmp_path / "src"
    (deep / ".dvc").mkdir()
    assert find_source(deep) is None


def test_the_copy_s_own_source_comes_before_all_other(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", ["of the editable install"])

    search_source(tmp_path)
    search_source(tmp_path)

    assert sys.path == [str(tmp_path), "of the editable install"]


def test_a_source_never_takes_the_place_of_the_installed_library(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    (tmp_path / "jemtrack").mkdir()

    search_source(tmp_path)

    assert sys.path == []
