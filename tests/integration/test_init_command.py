"""`jemtrack init` where a git repository is already."""

from pathlib import Path

from project import Project


def test_it_becomes_a_part_of_the_repository_that_it_is_in(tmp_path: Path):
    outer = Project(tmp_path)
    outer.run("git", "init", "--quiet")

    outer.run("jemtrack", "init", "studies/my-study")

    project = Project(tmp_path / "studies" / "my-study")
    assert not (project.path / ".git").exists()
    assert (project.path / "data.dvc").is_file()
    assert project.run("dvc", "root") == ".\n"
    assert "nothing to change" in project.run("jemtrack", "graph")
    assert "8 stages" in project.run("jemtrack", "check")
    again = outer.run("jemtrack", "init", "studies/my-study", fails=True)
    assert "nothing is overwritten" in again


def test_an_empty_clone_becomes_a_project(tmp_path: Path):
    """Such as one of a repository that was just made on GitHub."""
    clone = Project(tmp_path / "deep-sea")
    clone.path.mkdir()
    clone.run("git", "init", "--quiet")

    clone.run("jemtrack", "init", ".")

    stages = clone.read("dvc.yaml")["stages"]
    assert stages["MaxEntropyHuber"]["cmd"] == (
        "jemtrack stage deep_sea.stages.MaxEntropyHuber --name MaxEntropyHuber"
    )
    assert stages["MaxEntropyHuber"]["deps"] == [
        "nodes/PrepareData/images.safetensors",
        "src/deep_sea/objectives.py",
        "src/deep_sea/stages.py",
    ]
    assert (clone.path / ".dvc" / "plots" / "roc.json").is_file()
