"""Names of stages, steps, data sets and experiments: such as every file system has."""

from pathlib import Path

import numpy as np
import pytest
from data_files import random_images
from hypothesis import given
from hypothesis import strategies as st

from jemtrack.commands.main import main
from jemtrack.data.sources.fetch import fetch
from jemtrack.errors import InputError
from jemtrack.files import find_root, name_problem, path_problem
from jemtrack.project.graph import write_graph
from jemtrack.stages.prepare_data import PrepareData

BAD = [
    *("", ".", "..", "a/b", "a\\b", "a b", " a", "a\n", "a\0b", "ä", "a'b", 'a"b', "a;b", "a|b"),
    *("-a", ".a", "_a", "__pycache__", "$(id)", "`id`", "a*", "a:b", "n" * 101, "n" * 300),
    *("CON", "con", "NUL", "com1", "LPT9"),
]


@pytest.mark.parametrize("name", [*BAD, "a.", "nul.txt"])
def test_a_name_that_some_system_or_shell_does_not_have_is_refused(name):
    assert name_problem(name)
    assert len(name_problem(name)) < 250


@given(name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", fullmatch=True))
def test_all_others_are_names_of_files(name, tmp_path_factory):
    if not name_problem(name):
        path = tmp_path_factory.getbasetemp() / name
        path.mkdir(exist_ok=True)
        path.rmdir()


@given(text=st.text(max_size=300))
def test_a_path_is_one_that_the_system_can_look_for(text):
    if not path_problem(text):
        Path(text).exists()  # raises for a NUL, and for a name that is too long


@pytest.mark.parametrize("name", BAD)
def test_a_stage_of_such_a_name_is_refused_and_nothing_is_written(root, name):
    if not name:
        return  # ZnTrack then takes the class's
    with pytest.raises(InputError, match=r"^the name of a stage must be"):
        write_graph([PrepareData(name=name)])

    assert not Path("dvc.yaml").exists()


def test_two_stages_whose_names_differ_in_case_alone_are_refused(root):
    write_graph([PrepareData(name="Digits")])
    before = Path("dvc.yaml").read_text()

    with pytest.raises(InputError, match="'digits' and 'Digits' have one folder on some systems"):
        write_graph([PrepareData(name="digits")])
    with pytest.raises(InputError, match="have one folder on some systems"):
        write_graph([PrepareData(name="one"), PrepareData(name="ONE")])
    assert Path("dvc.yaml").read_text() == before


def test_two_data_sets_whose_names_differ_in_case_alone_are_refused(tmp_path):
    given = tmp_path / "my.npz"
    np.savez(given, images=random_images(4, 8, 8), labels=np.array([0, 1, 0, 1]))
    fetch("Mine", tmp_path / "data", given)

    with pytest.raises(InputError, match=r"a data set cannot be called mine: .*Mine is there"):
        fetch("mine", tmp_path / "data", given)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["Mine"]


def test_text_that_reads_as_something_else_is_quoted_in_the_graph_s_files(root):
    """And so read as text by all: `jemtrack graph` must not write what `check` refuses."""
    node = PrepareData()
    node.params = type(node.params)(dataset="no", data_root="010")
    write_graph([node])

    assert "dataset: 'no'" in Path("params.yaml").read_text()
    write_graph([node])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["data", "digits", "--root", "n" * 300], "argument --root: must be shorter"),
        (["data", "digits", "--from", "n" * 300], "argument --from: must be shorter"),
        (["validate", "n" * 300], "argument FILE: must be shorter"),
        (["validate", ""], "argument FILE: must not be empty"),
        (["train", "--config", "a\0b"], "argument --config: must not contain the character NUL"),
        (["compare", ""], "argument REV: must be the name of a revision"),
        (["compare", "HEAD", " "], "argument REV: must be the name of a revision"),
    ],
)
def test_an_argument_that_names_nothing_is_refused(capsys, command, message):
    with pytest.raises(SystemExit, match="2"):
        main(command)

    assert message in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_of_data_is_named(root, capsys):
    Path(".dvc").mkdir()
    Path("README.md").write_text("read me")

    assert main(["data", "digits", "--root", "README.md"]) == 1
    assert capsys.readouterr().err == (
        "jemtrack: README.md must be a folder to put data sets in, but it is a file\n"
    )


def test_the_root_is_the_nearest_folder_of_a_graph_or_of_dvc(tmp_path):
    deep = tmp_path / "workflows" / "mnist" / "nodes" / "x"
    deep.mkdir(parents=True)
    assert find_root(deep) == deep  # no project

    (tmp_path / ".dvc").mkdir()
    assert find_root(deep) == tmp_path
    (tmp_path / "workflows" / "mnist" / "dvc.yaml").touch()
    assert find_root(deep) == tmp_path / "workflows" / "mnist"


def test_commands_act_in_the_root_on_paths_of_the_folder_that_they_are_called_in(
    root, monkeypatch, capsys
):
    (root / ".dvc").mkdir()
    folder = root / "sub" / "folder"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("data: 3\n")
    monkeypatch.chdir(folder)

    assert main(["graph"]) == 0
    assert (root / "dvc.yaml").exists()
    assert main(["validate", "recipe.yaml"]) == 1
    assert "sub/folder/recipe.yaml:1: data: must hold" in capsys.readouterr().out
    assert main(["check"]) == 1
    assert "data/digits/digits.csv.gz is missing" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["recipe.yaml"]
