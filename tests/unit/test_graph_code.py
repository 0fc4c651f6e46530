from pathlib import Path

import pytest

from jemtrack.errors import InputError
from jemtrack.project.code import code_deps, workflow_module

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
    return [path.removeprefix("src/").removesuffix(".py") for path in code_deps([module])]


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

    assert names("own.start") == ["own/helper", "own/start"]


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

    assert names("own.start") == ["own/start"]


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

    modules = ["aside", "brought", "deep/__init__", "deep/end", "start"]
    assert names("own.start") == [f"own/{module}" for module in modules]


def test_a_package_s_own_code_counts_and_its_docstring_does_not():
    write(
        {
            "own/__init__.py": '"""Words."""',
            "own/deep/__init__.py": "VALUE = 1",
            "own/deep/start.py": "",
        }
    )

    assert names("own.deep.start") == ["own/deep/__init__", "own/deep/start"]


def rules(**lists: list[str]) -> None:
    lines = [f"{name} = {modules}" for name, modules in lists.items()]
    Path("pyproject.toml").write_text("\n".join(["[tool.jemtrack.code]", *lines]))


def test_a_folder_stands_for_its_modules_and_what_they_import_still_counts():
    rules(folders=["own.deep"])
    write(
        {
            "own/start.py": "import own.deep.one",
            "own/deep/one.py": "import own.aside",
            "own/deep/two.py": "import own.other",
            "own/aside.py": "",
            "own/other.py": "",
        }
    )

    assert names("own.start") == ["own/aside", "own/deep", "own/start"]


def test_watchers_are_left_out_with_what_they_alone_import():
    rules(watchers=["own.deep", "own.screen"])
    write(
        {
            "own/start.py": "import own.deep.one, own.screen, own.screened",
            "own/deep/one.py": "import own.aside",
            "own/screen.py": "",
            "own/screened.py": "",
            "own/aside.py": "",
        }
    )

    assert names("own.start") == ["own/screened", "own/start"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('folder = ["own.deep"]', r"has folders and watchers, got 'folder'"),
        ('watchers = "own.deep"', r"watchers must be a list of modules, got 'own.deep'"),
    ],
)
def test_rules_of_another_form_are_refused(line, problem):
    write({"own/start.py": ""})
    Path("pyproject.toml").write_text(f"[tool.jemtrack.code]\n{line}\n")

    with pytest.raises(InputError, match=problem):
        names("own.start")


def test_the_imports_of_all_packages_of_the_project_are_followed():
    write(
        {
            "own/start.py": "import other.helper",
            "other/__init__.py": "",
            "other/helper.py": "import own.deep.one",
            "own/deep/one.py": "",
        }
    )

    assert names("own.start") == ["other/helper", "own/deep/one", "own/start"]


def test_a_folder_whose_imports_cannot_be_followed_is_refused():
    write({"own/start.py": "import own.loose.one", "own/loose/one.py": ""})

    with pytest.raises(InputError, match=r"src/own/loose has no __init__\.py"):
        names("own.start")


def test_the_graph_is_of_the_one_package_or_of_the_module_that_is_named():
    assert workflow_module(Path("src")) == "own.workflow"
    write({"other/__init__.py": ""})
    with pytest.raises(InputError, match=r"workflow must be a module of other or own.*got nothing"):
        workflow_module(Path("src"))

    Path("pyproject.toml").write_text('[tool.jemtrack]\nworkflow = "own.graphs.main"\n')
    assert workflow_module(Path("src")) == "own.graphs.main"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("workflow = 3", r"workflow must be a module of own, such as own\.workflow, got 3"),
        ('workflow = "torch.nn"', r"such as own\.workflow, got 'torch\.nn'"),
        ('workflows = "own.main"', r"tool\.jemtrack has no 'workflows'; did you mean workflow\?"),
    ],
)
def test_settings_of_another_form_are_refused(line, problem):
    Path("pyproject.toml").write_text(f"[tool.jemtrack]\n{line}\n")

    with pytest.raises(InputError, match=problem):
        workflow_module(Path("src"))


def test_a_project_without_a_package_has_no_graph(tmp_path):
    (tmp_path / "empty" / "src").mkdir(parents=True)

    with pytest.raises(InputError, match="has no package: `jemtrack init` makes a project"):
        workflow_module(tmp_path / "empty" / "src")


def test_modules_from_elsewhere_bring_nothing():
    assert code_deps(["os.path", "torch", "ownership", "own.absent"]) == []


def test_a_module_written_meanwhile_is_seen():
    write({"own/start.py": ""})
    assert names("own.start") == ["own/start"]

    write({"own/start.py": "import own.new", "own/new.py": ""})
    assert names("own.start") == ["own/new", "own/start"]


def test_a_file_that_is_not_python_is_named():
    write({"own/start.py": "import own.broken", "own/broken.py": "def f(:"})

    with pytest.raises(InputError, match=r"src/own/broken.py, line 1.*valid Python"):
        code_deps(["own.start"])


@pytest.mark.parametrize(
    ("stage", "absent"),
    [
        ("x_entropy_augmented", ["jem/objectives/max_entropy", "evaluation"]),
        ("max_entropy_l1", ["max_entropy_l2", "jem/objectives/cross_entropy", "evaluation"]),
        ("max_entropy_l2", ["max_entropy_l1", "jem/objectives/cross_entropy", "evaluation"]),
        ("evaluate_x", ["jem/objectives", "jem/training", "stages/trainer", "evaluation/report"]),
        ("prepare_data", ["data/augment", "train", "jem"]),
    ],
)
def test_a_stage_does_not_depend_on_what_it_does_not_use(stage, absent, monkeypatch):
    monkeypatch.chdir(PROJECT)
    watchers = ["trackers", "project", "commands", "workflows", "recipe/check", "errors"]

    found = [path for path in real(stage) if path.startswith((*absent, *watchers))]

    assert found == []


@pytest.mark.parametrize(
    ("stage", "used"),
    [
        (
            "max_entropy_l1",
            [f"jem/objectives/max_entropy{form}.py" for form in ("", "_l1")],
        ),
        (
            "max_entropy_l1",
            ["jem/networks", "train", "record", "stages/trainer.py"],
        ),
        ("evaluate_x", ["evaluation/measures", "evaluation/statistics", "jem/networks"]),
        ("prepare_data", ["data/sources", "data/splits.py"]),
    ],
)
def test_a_stage_depends_on_what_it_uses(stage, used, monkeypatch):
    monkeypatch.chdir(PROJECT)

    assert {*used} <= {*real(stage)}
