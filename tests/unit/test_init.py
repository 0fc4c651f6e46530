"""`jemtrack init`: what it refuses, and the files of a new project."""

import ast
import re
import sys
from pathlib import Path

import pytest

from jemtrack import __version__
from jemtrack.commands.init import _files, init
from jemtrack.errors import InputError

NAMES = {
    "3d": "must begin with a letter",
    "study-": "end with a letter or digit",
    "my study": "must be at most 100 letters",
    "my.study": "must be at most 100 letters",
    "con": "Windows has no file",
    "class": "Python has a keyword class",
    "Torch": "a package torch is installed already",
    "jemtrack": "a package jemtrack is installed already",
    "json": "a package json is installed already",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_package_can_have_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"^the name of a project .*{NAMES[name]}"):
        init(tmp_path / name)

    assert not any(tmp_path.iterdir())


def test_a_folder_with_files_is_left_as_it_is(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("mine")

    with pytest.raises(InputError, match=r"study must not exist or be empty, but has thesis\.tex"):
        init(tmp_path / "study")

    assert [path.name for path in tmp_path.rglob("*")] == ["study", "thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_left_as_it_is(tmp_path):
    (tmp_path / "study").write_text("mine")

    with pytest.raises(InputError, match="study is a file"):
        init(tmp_path / "study")

    assert (tmp_path / "study").read_text() == "mine"


def test_without_git_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))

    with pytest.raises(InputError, match="git is not installed"):
        init(tmp_path / "study")

    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "package"), [("Deep-Sea", "deep_sea"), ("not-my-study", "not_my_study")]
)
def test_the_files_have_the_names_of_the_project(name, package):
    files = {path.as_posix(): content.decode() for path, content in _files(name, package)}

    source = f"src/{package}/workflow.py"
    assert {"Makefile", ".gitignore", ".dvc/plots/roc.json", source} <= {*files}
    assert f"from {package}.stages import MaxEntropyHuber" in files[source]
    assert f'name = "{name}"' in files["pyproject.toml"]
    assert f"jemtrack[all]~={__version__}" in files["pyproject.toml"]
    for path, content in files.items():
        assert not re.search("(?<!not[-_])my[-_]study", path + content), path
        if path.endswith(".py"):
            ast.parse(content)
