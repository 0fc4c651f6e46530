from pathlib import Path

import pytest

from jemtrack.errors import InputError
from jemtrack.project.code import code_deps

PROJECT = Path(__file__).parents[2]
STAGES = {
    name: f"jemtrack.stages.{name}"
    for name in [
        "prepare_data", "x_entropy_augmented", "max_entropy_l1", "max_entropy_l2", "evaluate_x",
    ]
}  # fmt: skip


@pytest.fixture(autouse=True)
def made_up(tmp_path, monkeypatch):
    """Stand in a project of a package `own` and a package within it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    write({"own/__init__.py": "", "own/deep/__init__.py": ""})


def write(sources: dict[str, str]) -> None:
    for name, source in sources.items():
        path = Path("src", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def names(module: str) -> list[str]:
    return [path.removeprefix("src/").removesuffix(".py") for path in code_deps([module], "own")]


def real(stage: str) -> list[str]:
    return [path.removeprefix("src/jemtrack/") for path in code_deps([STAGES[stage]])]


@pytest.mark.parametrize(
    "statement",
    [
        "import own.helper",
        "import own.helper as h",
        "from own import helper",
        "from own.helper import anything",
        "from own.helper import *",
        "from . import helper",
        "from .helper import anything",
        "def late():\n    import own.helper",
        "class Late:\n    from .helper import anything",
        "if True:\n    from . import helper",
        "try:\n    import own.helper\nexcept ImportError:\n    pass",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import own.helper",
        "if not TYPE_CHECKING:\n    import own.helper",
    ],
)
def test_an_import_counts_in_every_form(statement):
    write({"own/start.py": statement, "own/helper.py": "", "own/other.py": ""})

    assert names("own.start") == ["own/__init__", "own/helper", "own/start"]


@pytest.mark.parametrize(
    "statement",
    [
        "import os, torch, pytest",
        "import ownership.helper",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import own.helper",
        "import typing\nif typing.TYPE_CHECKING:\n    import own.helper",
        "import typing as t\nif t.TYPE_CHECKING:\n    from . import helper",
        "text = 'import own.helper'",
    ],
)
def test_what_is_not_run_or_not_own_does_not_count(statement):
    write({"own/start.py": statement, "own/helper.py": ""})

    assert names("own.start") == ["own/__init__", "own/start"]


def test_imports_are_followed_through_packages_and_cycles():
    write(
        {
            "own/start.py": "from own.deep.end import f",
            "own/deep/__init__.py": "from ..brought import by_the_package",
            "own/deep/end.py": "from .. import aside\nfrom ..deep import *",
            "own/aside.py": "import own.start",
            "own/brought.py": "",
            "own/unused.py": "",
        }
    )

    modules = ["__init__", "aside", "brought", "deep/__init__", "deep/end", "start"]
    assert names("own.start") == [f"own/{module}" for module in modules]


def test_modules_from_elsewhere_bring_nothing():
    assert code_deps(["os.path", "torch", "ownership", "own.absent"], "own") == []


def test_a_module_written_meanwhile_is_seen():
    write({"own/start.py": ""})
    assert names("own.start") == ["own/__init__", "own/start"]

    write({"own/start.py": "import own.new", "own/new.py": ""})
    assert names("own.start") == ["own/__init__", "own/new", "own/start"]


def test_a_file_that_is_not_python_is_named():
    write({"own/start.py": "import own.broken", "own/broken.py": "def f(:"})

    with pytest.raises(InputError, match=r"src/own/broken.py, line 1.*valid Python"):
        code_deps(["own.start"], "own")


@pytest.mark.parametrize(
    ("stage", "absent"),
    [
        ("x_entropy_augmented", ["jem/objectives/max_entropy", "evaluation/"]),
        ("max_entropy_l1", ["max_entropy_l2", "jem/objectives/cross_entropy", "evaluation/"]),
        ("max_entropy_l2", ["max_entropy_l1", "jem/objectives/cross_entropy", "evaluation/"]),
        ("evaluate_x", ["engine/loop", "jem/objectives/", "trackers/", "stages/trainer"]),
        ("prepare_data", ["data/augment", "data/fetch", "engine/", "jem/", "trackers/"]),
    ],
)
def test_a_stage_does_not_hang_on_what_it_does_not_use(stage, absent, monkeypatch):
    monkeypatch.chdir(PROJECT)
    tools = ["graph/", "cli", "workflow", "notebook"]

    found = [path for path in real(stage) if path.startswith((*absent, *tools))]

    assert found == []


def test_a_stage_hangs_on_what_it_uses(monkeypatch):
    monkeypatch.chdir(PROJECT)

    assert {"__init__.py", "jem/objectives/max_entropy.py", "engine/loop.py"} <= {
        *real("max_entropy_l1")
    }
    assert {"evaluation/calibration.py", "jem/inference.py"} <= {*real("evaluate_x")}
    assert {"data/own.py", "parameters.py", "stages/stage.py"} <= {*real("prepare_data")}
