"""Notebooks made in small projects, and the modules that become of their cells."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from jemtrack.errors import InputError
from jemtrack.project.notebooks import enter_project, export

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty package, but for two modules and their package; the root is where one stands."""
    for name in ("__init__.py", "commands/main.py", "stages/__init__.py", "stages/trainer.py"):
        path = tmp_path / "src" / "jemtrack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def whole_project(project):
    """The same with the real package, so that processes that stand in it can import all."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", project / "src", dirs_exist_ok=True, ignore=ignored)
    return project


@pytest.fixture
def without_ruff(monkeypatch):
    found = importlib.util.find_spec
    hide = lambda name, *rest: None if name == "ruff" else found(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hide)


def write_notebook(path, *cells):
    """Write a notebook of code cells; a cell that is a list is a markdown cell."""
    made = [
        new_markdown_cell(*cell) if isinstance(cell, list) else new_code_cell(cell)
        for cell in cells
    ]
    nbformat.write(new_notebook(cells=made), path)
    return path


def files_of(project):
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in project.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".ruff_cache" not in path.parts
    }


def run_python(project, program):
    """Run a program in a process that stands in the project; give what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_notebook_becomes_a_module_and_nothing_else_changes(project):
    write_notebook(
        Path("notebooks/a.ipynb"),
        ["# A title\n> and what nbdev makes of it"],
        "#| default_exp stages.mine",
        '#| export\n"""The stage Mine."""',
        "%matplotlib inline\n!ls",
        "#| export\nimport math\n\nTAU = 2 * math.pi",
        "print(TAU)",
        '#|export\ndef half(x: float) -> float:\n    """Give τ / 4."""\n    return x * TAU / 4',
    )
    before = files_of(project)

    assert export("notebooks/a.ipynb") == [Path("src/jemtrack/stages/mine.py")]

    after = files_of(project)
    assert after.pop("src/jemtrack/stages/mine.py").decode() == (
        "# Exported from notebooks/a.ipynb: edit it there.\n\n"
        '"""The stage Mine."""\n\n'
        "import math\n\n"
        "TAU = 2 * math.pi\n\n\n"
        'def half(x: float) -> float:\n    """Give τ / 4."""\n    return x * TAU / 4\n'
    )
    assert after == before


@pytest.mark.parametrize("folder", [".", "notebooks", "src/jemtrack"])
def test_a_notebook_makes_several_modules_wherever_one_stands(project, monkeypatch, folder):
    notebook = write_notebook(
        project / "notebooks" / "a.ipynb",
        "#| export lab.penalties.own\nWEIGHT = 1.0",
        "#| default_exp lab.stage",
        "#| export\nfrom jemtrack.lab.penalties.own import WEIGHT",
        "#| export lab.penalties.own\nHALF = WEIGHT / 2",
        "#| export lab.stage\nDOUBLE = 2 * WEIGHT",
        "#| export\nLAST = DOUBLE",
    )
    monkeypatch.chdir(project / folder)

    paths = export(os.path.relpath(notebook))

    names = ["lab/penalties/own.py", "lab/stage.py"]
    assert [path.resolve() for path in paths] == [project / "src/jemtrack" / name for name in names]
    own, stage = (path.read_text().split("\n\n", 1)[1] for path in paths)
    assert own == "WEIGHT = 1.0\n\n\nHALF = WEIGHT / 2\n"
    assert stage.startswith("from jemtrack.lab.penalties.own import WEIGHT\n\n")
    assert stage.endswith("\nDOUBLE = 2 * WEIGHT\n\n\nLAST = DOUBLE\n")
    for package in ("lab", "lab/penalties"):
        assert (project / "src/jemtrack" / package / "__init__.py").read_bytes() == b""


def test_in_a_project_of_one_s_own_the_module_goes_into_its_package(tmp_path, monkeypatch):
    (tmp_path / "src" / "my_study").mkdir(parents=True)
    (tmp_path / "src" / "my_study" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    write_notebook(Path("a.ipynb"), "#| default_exp penalties.mine", "#| export\nX = 1")

    assert export("a.ipynb") == [Path("src/my_study/penalties/mine.py")]

    assert Path("src/my_study/penalties/__init__.py").exists()
    write_notebook(Path("b.ipynb"), "#| export my_study.mine\nX = 1")
    with pytest.raises(InputError, match="names are below my_study: write mine"):
        export("b.ipynb")


def test_an_exported_markdown_cell_documents_the_module(project):
    write_notebook(
        Path("a.ipynb"),
        ["#| export\nFirst line.\n\nMore of it."],
        "#| default_exp mine",
        "#| export\nX = 1",
    )

    (path,) = export("a.ipynb")

    assert ast.get_docstring(ast.parse(path.read_text())) == "First line.\n\nMore of it."


def test_what_is_exported_is_as_ruff_wants_it(project):
    write_notebook(
        Path("a.ipynb"),
        "#| default_exp mine",
        "#| export\nimport sys\nimport os\nfrom jemtrack.lab.mine import THIS\nimport torch",
        "#| export\nlonely = [os , sys,\n torch, THIS]",
        "#| export\nclass A: pass",
        "#| export\n@A\ndef f( ): return 'f'",
    )

    (path,) = export("a.ipynb")

    for command in (["check", "--select", "I,E402,E501"], ["format", "--check"]):
        done = subprocess.run(["ruff", *command, path], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_whole_package_survives_a_notebook(project, without_ruff):
    """Each of our modules as a cell: no name is missed, and the code stays what it is."""
    sources = sorted((ROOT / "src" / "jemtrack").rglob("*.py"))
    texts = {f"m{number}": source.read_text() for number, source in enumerate(sources)}
    write_notebook(
        Path("a.ipynb"), *(f"#| export all.{name}\n{text}" for name, text in texts.items() if text)
    )

    paths = export("a.ipynb")

    assert len(paths) > 50
    for path in paths:
        assert ast.dump(ast.parse(path.read_text())) == ast.dump(ast.parse(texts[path.stem]))


MINE = "#| default_exp stages.mine"

REFUSED = {
    "nothing to export": [["Only text"], "X = 1", MINE],
    "has no module to go to": ["#| export\nX = 1"],
    "has 2 cells with `#| default_exp`": [MINE, "#| export\nX = 1", "#| default_exp stages.other"],
    r"`#\| default_exp `: expected the name of a module": ["#| default_exp", "#| export\nX = 1"],
    r"`#\| default_exp ../evil`": ["#| default_exp ../evil", "#| export\nX = 1"],
    r"`#\| default_exp ..evil`": ["#| default_exp ..evil", "#| export\nX = 1"],
    r"`#\| default_exp /evil`": ["#| default_exp /evil", "#| export\nX = 1"],
    r"`#\| export stages/mine`": ["#| export stages/mine\nX = 1"],
    r"`#\| export a b`": ["#| export a b\nX = 1"],
    r"`#\| exporti lab.class`": ["#| exporti lab.class\nX = 1"],
    "names are below jemtrack: write stages.mine": ["#| export jemtrack.stages.mine\nX = 1"],
    "trainer.py: was not exported from this notebook": ["#| export stages.trainer\nX = 1"],
    "__init__.py: was not exported from this notebook": ["#| export stages.__init__\nX = 1"],
    r"src/jemtrack/stages has that name": ["#| export stages\nX = 1"],
    r"src/jemtrack/commands/main.py has that name": ["#| export commands.main.mine\nX = 1"],
    r"exported cell '%cd ..' ... is not valid Python .*'%cd ..'": [MINE, "#| export\n%cd .."],
    r"'def f\(x:' ... is not valid Python": [MINE, "#| export\nX = 1", "#| export\ndef f(x:\n  1"],
    "'await X' ... is not valid Python .* outside": [
        MINE,
        "#| export\nX = 1",
        "#| export\nawait X",
    ],
    "jemtrack.stages.mine is not valid Python .* __future__": [
        *(MINE, "#| export\nX = 1", "#| export\nfrom __future__ import annotations")
    ],
    "jemtrack.stages.mine uses Y, np, which none": [
        *(MINE, "import numpy as np", "Y = 1", "#| export\ndef f(x: np.ndarray):\n  return Y + x")
    ],
    "jemtrack.stages.mine uses X, which none": [
        *(MINE, "#| export stages.other\nX = 1", "#| export\nTWICE = [X for _ in range(2)]")
    ],
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_notebook_that_cannot_be_exported_writes_nothing(project, message):
    write_notebook(Path("a.ipynb"), *REFUSED[message])
    before = files_of(project)

    with pytest.raises(InputError, match=message) as refusal:
        export("a.ipynb")

    assert str(project) in str(refusal.value)
    assert files_of(project) == before


def test_one_bad_module_keeps_the_good_ones_from_being_written(project):
    write_notebook(Path("a.ipynb"), "#| export good\nX = 1", "#| export bad\nY = X")

    with pytest.raises(InputError, match=r"jemtrack\.bad uses X"):
        export("a.ipynb")

    assert not Path("src/jemtrack/good.py").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nb.ipynb: cannot be read: No such file"),
        (b"# text", "is not a Jupyter notebook"),
        (b"[1]", "is not a Jupyter notebook"),
        (b'{"a": 1}', "is not a Jupyter notebook"),
        (b'{"cells": [1]}', "is not a Jupyter notebook"),
        (b"\xff\xfe", "is not a Jupyter notebook"),
    ],
)
def test_what_is_no_notebook_is_refused(project, content, message):
    if content is not None:
        Path("nb.ipynb").write_bytes(content)

    with pytest.raises(InputError, match=message):
        export("nb.ipynb")


def test_a_notebook_outside_of_a_project_is_refused(tmp_path):
    write_notebook(tmp_path / "a.ipynb", MINE, "#| export\nX = 1")

    with pytest.raises(InputError, match="is a project"):
        export(tmp_path / "a.ipynb")


def test_a_module_is_its_notebooks_own(project):
    """A second export writes it again; another notebook may not."""
    first = write_notebook(Path("a.ipynb"), MINE, "#| export\nX = 1")
    other = write_notebook(Path("b.ipynb"), MINE, "#| export\nX = 3")
    export(first)

    write_notebook(first, MINE, "#| export\nX = 2")
    (path,) = export(first)
    with pytest.raises(InputError, match="not exported from this notebook"):
        export(other)

    assert path.read_text().endswith("\nX = 2\n")


BUILT_ON_ONE_ANOTHER = """
import importlib, sys

NAMES = ["jem.objectives.cubic", "jem.objectives.steep", "stages.max_entropy_cubic"]
for first in NAMES:  # circular imports would fail from one side or the other
    for name in NAMES:
        sys.modules.pop(f"jemtrack.{name}", None)
    importlib.import_module(f"jemtrack.{first}")
    from jemtrack.jem.objectives.steep import Steep
    from jemtrack.stages.max_entropy_cubic import MaxEntropyCubic
    node = MaxEntropyCubic(data="x", objective=Steep())
    print(node.name, Steep.__mro__[1].__module__)
"""


def test_notebooks_build_on_one_another(whole_project):
    write_notebook(
        Path("notebooks/a.ipynb"),
        "#| export jem.objectives.cubic\n"
        "from jemtrack.jem.objectives.max_entropy import MaxEntropyObjective\n"
        "from jemtrack.parameters import parameters",
        "#| export jem.objectives.cubic\n@parameters\nclass Cubic(MaxEntropyObjective):\n"
        "    def spread(self, deviation_B):\n        return deviation_B.abs() ** 3",
    )
    write_notebook(
        Path("notebooks/b.ipynb"),
        "#| default_exp stages.max_entropy_cubic",
        "#| export\nimport zntrack\nfrom jemtrack.jem.objectives.cubic import Cubic\n"
        "from jemtrack.stages.trainer import Trainer",
        "#| export\nclass MaxEntropyCubic(Trainer):\n"
        "    objective: Cubic = zntrack.deps(default_factory=Cubic)",
        "#| export jem.objectives.steep\nfrom jemtrack.jem.objectives.cubic import Cubic",
        "#| export jem.objectives.steep\nclass Steep(Cubic):\n    pass",
    )
    # Exported from notebooks/, the second one first: no notebook has to run before another.
    for name in ("b", "a"):
        printed = run_python(
            whole_project / "notebooks",
            f"from jemtrack.project.notebooks import export; print(*export('{name}.ipynb'))",
        )
        assert all(path.startswith("../src/jemtrack/") for path in printed)

    printed = run_python(whole_project, BUILT_ON_ONE_ANOTHER)
    assert printed == ["MaxEntropyCubic", "jemtrack.jem.objectives.cubic"] * 3


def test_the_next_import_of_a_running_python_brings_the_new_module(whole_project):
    """The same size within the same second: neither the kernel nor a .pyc may hide the change."""
    program = """
from pathlib import Path
from jemtrack.project.notebooks import export

notebook = Path("notebooks/a.ipynb")
for number in range(3):
    export(notebook)
    from jemtrack.stages import mine
    from jemtrack.stages.mine import X
    from jemtrack.stages.other import Y
    print(X, Y, mine.X)
    notebook.write_text(notebook.read_text().replace(f"X = {number}", f"X = {number + 1}"))
"""
    write_notebook(
        Path("notebooks/a.ipynb"),
        "#| export stages.mine\nX = 0",
        "#| export stages.other\nfrom jemtrack.stages.mine import X",
        "#| export stages.other\nY = X",
    )

    assert run_python(whole_project, program) == [*"000111222"]


def test_enter_project_goes_to_the_root_and_finds_the_environments_commands(project, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.chdir(project / "notebooks")

    enter_project()
    enter_project()

    assert Path.cwd() == project
    assert shutil.which("dvc") == str(Path(sys.executable).with_name("dvc"))
    assert os.environ["PATH"].count(str(Path(sys.executable).parent)) == 1


def test_enter_project_refuses_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match="is a project"):
        enter_project()
