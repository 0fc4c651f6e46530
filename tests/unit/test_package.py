"""What the installed package promises: its version, and that it imports light."""

import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

import jemtrack
from jemtrack.commands.main import main

PROJECT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())

EXTRAS = PYPROJECT["project"]["optional-dependencies"]
MODULES = {
    re.match(r"\w+", package)[0]
    for name in ("dvc", "notebooks", "plots")
    for package in EXTRAS[name]
} | {"IPython", "execnb", "fastcore", "nbformat", "PIL"}
# A process that finds no module of these extras.
WITHOUT_EXTRAS = f"""
import importlib, pkgutil, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {MODULES}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Absent())
import jemtrack
from jemtrack.commands.main import main
"""


def run_python(code: str) -> str:
    """Run `code` in a fresh process; return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_version_is_that_of_pyproject_changelog_and_citation(capsys):
    version = PYPROJECT["project"]["version"]
    assert jemtrack.__version__ == version
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"jemtrack {version}\n"
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation["version"] == version
    released = f"\n## [{version}] - {citation['date-released']}\n"
    assert released in (PROJECT / "CHANGELOG.md").read_text()


def test_its_types_are_public():
    assert (files("jemtrack") / "py.typed").is_file()


def test_importing_it_imports_no_library():
    loaded = run_python("import sys, jemtrack; print(*sys.modules)").split()
    assert not {"torch", "numpy", "pandas", "pydantic", "zntrack", "dvc"} & {*loaded}


def test_the_library_does_without_the_extras():
    run_python(
        f"""{WITHOUT_EXTRAS}
for name in ("evaluation", "factories", "jem", "train", "commands.train"):
    module = importlib.import_module(f"jemtrack.{{name}}")
    for each in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{{module.__name__}}."):
        # Those that write reports need the extra `plots`.
        if each.name.rpartition(".")[2] not in {{"page", "pictures"}}:
            importlib.import_module(each.name)
assert jemtrack.load_model
"""
    )


def test_a_recipe_is_checked_without_the_extras():
    recipe = str(PROJECT / "recipes" / "two_phase.yaml")
    assert recipe in run_python(f"{WITHOUT_EXTRAS}\nmain(['validate', {recipe!r}])")


def test_a_command_names_the_extra_that_it_lacks(tmp_path):
    lines = run_python(
        f"""{WITHOUT_EXTRAS}
import contextlib, os
os.chdir({str(tmp_path)!r})
with contextlib.redirect_stderr(sys.stdout):
    for arguments in (["data", "digits"], ["graph"], ["exps"], ["notebook", "mine.ipynb"]):
        assert main(arguments) == 1
"""
    ).splitlines()
    where = ", not installed here: pip install 'jemtrack"
    assert [line.removeprefix("jemtrack: this needs ") for line in lines] == [
        f"dvc{where}[dvc]'",
        f"ruamel{where}[dvc]'",
        f"dvc{where}[dvc]'",
        f"pyflakes{where}[notebooks]'",
    ]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jemtrack' has no attribute 'lode_model'"):
        _ = jemtrack.lode_model
