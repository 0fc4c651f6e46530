"""What the installed package promises: its version, and that it imports light."""

import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import jemtrack
from jemtrack.commands.main import main

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())


def run_python(code: str) -> str:
    """Run `code` in a fresh process; return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_version_is_that_of_pyproject_and_the_changelog(capsys):
    version = PYPROJECT["project"]["version"]
    assert jemtrack.__version__ == version
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"jemtrack {version}\n"
    changelog = Path(__file__).parents[2] / "CHANGELOG.md"
    assert f"\n## [{version}] - " in changelog.read_text()


def test_its_types_are_public():
    assert (files("jemtrack") / "py.typed").is_file()


def test_importing_it_imports_no_library():
    loaded = run_python("import sys, jemtrack; print(*sys.modules)").split()
    assert not {"torch", "numpy", "pandas", "pydantic", "zntrack", "dvc"} & {*loaded}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jemtrack' has no attribute 'lode_model'"):
        _ = jemtrack.lode_model
