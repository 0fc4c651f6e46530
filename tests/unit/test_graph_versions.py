"""versions.yaml: the packages that decide figures, as parameters of every stage."""

from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from jemtrack.commands.check import check
from jemtrack.errors import InputError
from jemtrack.project.params import installed_versions, version_problems
from jemtrack.stages.prepare_data import PrepareData


def written() -> dict[str, str]:
    return yaml.safe_load(Path("versions.yaml").read_text())


def public(package: str) -> str:
    return version(package).partition("+")[0]


def test_the_graph_writes_what_is_installed_and_every_stage_reads_it(root):
    PrepareData().write_graph()

    assert written() == {"numpy": public("numpy"), "torch": public("torch")}
    stage = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]["PrepareData"]
    assert {"versions.yaml": None} in stage["params"]
    assert version_problems() == []


def test_another_version_is_named_until_the_graph_is_written(root):
    PrepareData().write_graph()
    Path("versions.yaml").write_text("numpy: 1.0.0\ntorch: 0.4.1\n")

    with pytest.raises(InputError, match=r"versions.yaml: torch is '0.4.1', but .* is installed"):
        check()
    PrepareData().write_graph()

    assert written()["torch"] == public("torch")


def test_a_package_that_a_person_lists_is_kept_up_to_date(root):
    Path("versions.yaml").write_text("scipy: 1.0.0\n")

    PrepareData().write_graph()

    assert written() == {name: public(name) for name in ("numpy", "scipy", "torch")}


def test_the_library_counts_where_its_source_is_not_in_the_project(root, monkeypatch):
    assert "jemtrack" not in installed_versions()

    (elsewhere := root / "elsewhere" / "src").mkdir(parents=True)
    monkeypatch.chdir(elsewhere.parent)

    assert installed_versions()["jemtrack"] == version("jemtrack")
