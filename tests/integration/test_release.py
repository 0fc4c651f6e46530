"""`jemtrack release`, in a git and DVC repository of its own, and who gets what it released."""

import shutil
import sys
from pathlib import Path

import pytest
from project import Project

DVC_YAML = "artifacts:\n  digits:\n    path: bundle\n    type: model\n"


@pytest.fixture
def project(deployed_once, tmp_path) -> Project:
    path = tmp_path / "project"
    shutil.copytree(deployed_once / "bundle", path / "bundle")
    (path / "dvc.yaml").write_text(DVC_YAML)
    project = Project(path)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.run("git", "config", "user.email", "nobody@example.org")
    project.run("git", "config", "user.name", "Nobody")
    project.run("dvc", "init", "--quiet")
    project.run("dvc", "add", "--quiet", "bundle")
    project.commit("a bundle")
    return project


def test_a_released_version_is_got_in_a_clean_folder_and_answers(project, tmp_path):
    lines = project.run("jemtrack", "release", "digits", "v1.0.0").splitlines()
    head = project.run("git", "rev-parse", "--short=7", "HEAD").strip()
    assert lines[0].startswith(f"digits@v1.0.0 is a tag of the commit {head}")
    assert project.run("git", "tag").split() == ["digits@v1.0.0"]
    # A later bundle is another version; the first one stays what it was.
    (project.path / "bundle" / "card.md").write_text("changed")
    project.run("dvc", "add", "--quiet", "bundle")
    project.commit("another bundle")
    project.run("jemtrack", "release", "digits", "v1.1.0")

    (tmp_path / "clean").mkdir()
    clean = Project(tmp_path / "clean")
    clean.run("dvc", "artifacts", "get", str(project.path), "digits", "--rev", "v1.0.0")
    tested = clean.run(sys.executable, "bundle/predict.py", "--self-test").splitlines()
    assert len(tested) == 10
    assert all(line.endswith("to the bit") for line in tested)


def test_what_cannot_be_released_is_refused_in_one_line(project):
    def refused(message: str, *arguments: str) -> None:
        said = project.run("jemtrack", "release", *arguments, fails=True)
        assert said.startswith("jemtrack: ")
        assert message in said
        assert said.count("\n") == 1

    refused("no artifact 'other'; it has digits", "other", "v1.0.0")
    refused("cannot be released as one: ", "digits", "one")
    project.run("jemtrack", "release", "digits", "v1.0.0")
    refused("cannot be released as v1.0.0: ", "digits", "v1.0.0")
    (project.path / "dvc.yaml").write_text(DVC_YAML + "    desc: changed\n")
    refused("dvc.yaml differs from the last commit", "digits", "v2.0.0")
    project.commit("described")
    shutil.rmtree(project.path / ".dvc" / "cache")
    refused("bundle of the last commit cannot be read: ", "digits", "v2.0.0")
    assert project.run("git", "tag").split() == ["digits@v1.0.0"]


def test_a_project_without_a_commit_or_an_artifact_is_told(project, tmp_path):
    project.run("git", "rm", "--quiet", "dvc.yaml")
    project.run("git", "commit", "--quiet", "--message", "no artifacts")
    assert "dvc.yaml of HEAD" in project.run("jemtrack", "release", "digits", "v1.0.0", fails=True)
    empty = Project(tmp_path / "empty")
    empty.path.mkdir()
    said = empty.run("jemtrack", "release", "digits", "v1.0.0", fails=True)
    assert said.count("\n") == 1
    assert Path(tmp_path / "empty").is_dir()
