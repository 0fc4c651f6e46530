"""Edits by hand in the real files, over several writings of the graph."""

import errno
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
import zntrack
from pydantic import Field

from jemtrack.errors import InputError
from jemtrack.files import atomic_write_texts
from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.parameters import parameters
from jemtrack.project import graph
from jemtrack.project.graph import write_graph
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.prepare_data import DataArgs, PrepareData
from jemtrack.stages.stage import Stage, plot
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented
from jemtrack.workflows import default as workflow

FILES = ["dvc.yaml", "params.yaml", "zntrack.json"]
IMAGES = "nodes/PrepareData/images.safetensors"


def read(name: str) -> Any:
    text = Path(name).read_text()
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


def texts() -> list[str]:
    return [Path(name).read_text() for name in FILES]


def edit(name: str, old: str, new: str) -> None:
    text = Path(name).read_text()
    assert text.count(old) == 1, (old, text)
    Path(name).write_text(text.replace(old, new))


def trainer(name: str | None = None, **params: Any) -> MaxEntropyL1:
    return MaxEntropyL1(name=name, data=IMAGES, params=TrainArgs(**params))


@parameters
class Before:
    lr: Annotated[float, Field(gt=0)] = 0.1
    sizes: list[int] = Field(default_factory=lambda: [1, 2])
    depth: int = 3


@parameters
class After:
    lr: float = 0.1
    sizes: list[int] = Field(default_factory=lambda: [1, 2])
    added: bool = False


class Made(Stage):
    params: Any = zntrack.deps(default_factory=Before)
    log: Path = zntrack.outs_path(zntrack.nwd / "log.txt")
    curve: Path = plot(zntrack.nwd / "curve.csv", x="step", y=["a", "b"])


class Bare(Stage):
    made: Path = zntrack.deps_path()


@pytest.fixture
def shipped(root):
    workflow.write_graph()
    return root


def test_writing_again_changes_nothing(shipped):
    before = texts()

    workflow.write_graph()

    assert texts() == before


def test_the_order_of_a_new_stage_s_keys_is_that_of_reading(shipped):
    keys = ["cmd", "desc", "deps", "params", "outs", "metrics", "plots"]

    assert list(read("dvc.yaml")) == ["stages", "plots", "artifacts"]
    assert list(read("dvc.yaml")["stages"]["EvaluateX"]) == keys
    # The report has no parameters.
    assert list(read("dvc.yaml")["stages"]) == [*read("params.yaml"), "Report"]


def test_the_trainers_share_a_plot_of_each_curve_and_are_models_of_the_registry(shipped):
    graph = read("dvc.yaml")

    curves = {name: options for plot in graph["plots"] for name, options in plot.items()}
    assert [*curves] == ["train_loss", "valid_nll", "valid_accuracy"]
    trainers = ["XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2"]
    assert curves["valid_nll"] == {
        "x": "epoch", "y": {f"nodes/{name}/history.csv": "valid_nll" for name in trainers},
    }  # fmt: skip
    assert [*graph["artifacts"]] == ["xentropy-augmented", "max-entropy-l1", "max-entropy-l2"]
    path = "nodes/MaxEntropyL1/model.safetensors"
    assert graph["artifacts"]["max-entropy-l1"] == {"path": path, "type": "model"}


def test_a_plot_and_an_artifact_changed_by_hand_stay_so(shipped):
    edit("dvc.yaml", "- valid_nll:\n    x: epoch\n", "- valid_nll:\n    x: epoch\n    title: NLL\n")
    edit(
        "dvc.yaml",
        "MaxEntropyL1/model.safetensors\n    type: model",
        "MaxEntropyL1/model.safetensors\n    type: mine",
    )
    before = texts()

    workflow.write_graph()

    assert texts() == before


def test_what_was_added_to_dvc_yaml_by_hand_stays(shipped, capsys):
    edit("dvc.yaml", "stages:\n", "# Mine.\nvars:\n- width: 3\nstages:\n  own:\n    cmd: echo\n")
    command = "MaxEntropyL1 --no-save-lockfile\n"
    added = "    meta: {owner: me}\n    frozen: true\n    wdir: .\n"
    edit("dvc.yaml", command, command + added)
    desc = read("dvc.yaml")["stages"]["MaxEntropyL1"]["desc"]
    edit("dvc.yaml", f"    desc: '{desc}'\n", "    desc: the L1 form  # short\n")
    edit(
        "dvc.yaml",
        "    - src/jemtrack/stages/max_entropy_l1.py\n",
        "    - notes.md  # read it\n    - src/jemtrack/stages/max_entropy_l1.py\n",
    )
    edit(
        "dvc.yaml",
        "    - nodes/MaxEntropyL1/model.safetensors\n    - nodes/MaxEntropyL1/node",
        "    - nodes/MaxEntropyL1/model.safetensors:\n        persist: true\n"
        "    - nodes/MaxEntropyL1/node",
    )
    edit(
        "dvc.yaml",
        "        template: confidence\n",
        "        template: mine\n        title: 'How sure'\n",
    )
    edit("dvc.yaml", "- valid_accuracy:\n", "- own.csv\n- valid_accuracy:\n")
    with Path("dvc.yaml").open("a") as file:
        file.write("  best:\n    path: nodes/MaxEntropyL1/model.safetensors\n")
    before = texts()

    workflow.write_graph()
    trainer(lr=0.5).write_graph()
    edit("params.yaml", "lr: 0.5", f"lr: {TrainArgs().lr}")
    workflow.write_graph()

    assert Path("dvc.yaml").read_text() == before[0]
    assert capsys.readouterr().err == ""


def test_a_changed_parameter_stays_and_its_comment_with_it(shipped, capsys):
    edit(
        "params.yaml",
        "  params:\n    dataset: digits # ",
        "  # mine\n  params:\n    dataset: mnist5k  # more of it than ",
    )
    edit("params.yaml", "n_valid: 180", "n_valid: 18.0e+1")
    before = Path("params.yaml").read_text()

    workflow.write_graph()

    assert Path("params.yaml").read_text() == before
    deps = read("dvc.yaml")["stages"]["PrepareData"]["deps"]
    assert deps[0] == "data/mnist5k"
    assert "data/digits" not in deps
    assert capsys.readouterr().err == ""


def test_a_value_that_python_alone_changed_is_taken(shipped):
    trainer(lr=0.5).write_graph()

    assert read("params.yaml")["MaxEntropyL1"]["params"]["lr"] == 0.5


def test_of_a_value_that_both_changed_the_file_s_stays_and_is_told_once(shipped, capsys):
    edit(
        "params.yaml",
        "MaxEntropyL1:\n  params:\n    device: auto",
        "MaxEntropyL1:\n  params:\n    device: cpu",
    )

    for _ in range(2):
        trainer(device="cuda").write_graph()

    assert read("params.yaml")["MaxEntropyL1"]["params"]["device"] == "cpu"
    assert capsys.readouterr().err == (
        "params.yaml: MaxEntropyL1.params.device stays 'cpu', as changed by hand; "
        "the graph says 'cuda'\n"
    )


def test_a_field_that_vanished_goes_and_a_new_one_comes_to_its_place(root, capsys):
    Made().write_graph()
    edit("params.yaml", "depth: 3", "depth: 4")
    edit("params.yaml", "    - 2\n", "")

    Made(params=After()).write_graph()

    values = read("params.yaml")["Made"]["params"]
    assert values == {"lr": 0.1, "sizes": [1], "added": False, "_cls": "test_graph_files.After"}
    assert list(values) == ["lr", "sizes", "added", "_cls"]
    assert "Made.params.depth left the graph" in capsys.readouterr().err


def test_each_column_of_a_file_is_a_plot_which_can_be_changed_by_hand(root):
    Made().write_graph()
    edit("dvc.yaml", "nodes/Made/curve.csv: b", "nodes/Made/curve.csv: c")

    Made().write_graph()

    assert read("dvc.yaml")["plots"] == [
        {"a": {"x": "step", "y": {"nodes/Made/curve.csv": "a"}}},
        {"b": {"x": "step", "y": {"nodes/Made/curve.csv": "c"}}},
    ]


@parameters
class Commented(Before):
    """Parameters with a description.

    Attributes:
        lr: how fast; 0 is
            not at all. More is elsewhere.
        depth, width: sizes: %s.
    """

    width: int = 3


Commented.__doc__ = (Commented.__doc__ or "") % ("very " * 30 + "long")


def test_parameters_are_commented_by_their_docstrings_unless_by_hand(root):
    Made(params=Commented()).write_graph()

    lines = Path("params.yaml").read_text().splitlines()
    said = {line.split(":")[0].strip(): line.partition(" # ")[2] for line in lines}
    # The first sentence, or its first clause if it is long.
    assert said["lr"] == "how fast; 0 is not at all"
    assert (said["depth"], said["width"]) == ("sizes", "sizes")
    assert said["_cls"] == ""
    edit("params.yaml", "# how fast; 0 is not at all", "# mine")
    before = texts()

    Made(params=Commented()).write_graph()

    assert texts() == before


def test_numbers_too_small_to_write_out_are_read_as_numbers(root):
    Made(params=Before(lr=1e-7)).write_graph()

    assert read("params.yaml")["Made"]["params"]["lr"] == 1e-7


def test_a_stage_needs_no_parameters(root):
    Bare(made=Path("nodes/Made/log.txt")).write_graph()

    assert read("dvc.yaml") == {
        "stages": {
            "Bare": {
                "cmd": "zntrack run test_graph_files.Bare --name Bare --no-save-lockfile",
                "deps": ["nodes/Made/log.txt"],
                "params": [{"versions.yaml": None}],
                "outs": ["nodes/Bare/node-meta.json", "nodes/Bare/resources.json"],
            }
        }
    }
    assert not Path("params.yaml").exists()


def test_a_stage_can_be_declared_before_the_one_that_it_reads(root):
    trainer().write_graph()
    assert list(read("dvc.yaml")["stages"]) == ["MaxEntropyL1"]

    PrepareData().write_graph()

    assert list(read("dvc.yaml")["stages"]) == ["MaxEntropyL1", "PrepareData"]
    assert IMAGES in read("dvc.yaml")["stages"]["MaxEntropyL1"]["deps"]
    assert IMAGES in read("dvc.yaml")["stages"]["PrepareData"]["outs"]


@pytest.mark.filterwarnings("ignore:Node name")
def test_stages_that_are_skipped_do_not_run_and_the_others_run_in_order(root, monkeypatch):
    ran = []
    monkeypatch.setattr(graph, "_reproduce", lambda names, *, alone: ran.append((names, alone)))
    prepared = PrepareData()
    first, second = (
        MaxEntropyL1(name=name, data=prepared.images, objective=MaxEntropyL1Objective())
        for name in ("First", "Second")
    )

    write_graph([first, second, prepared], run=True, skip=["First"])

    write_graph([first, second, prepared], run=True)
    assert ran == [(["PrepareData", "Second"], True), (["First", "Second", "PrepareData"], False)]
    with pytest.raises(InputError, match="no stage 'Third' to skip; it has First, PrepareData"):
        write_graph([first, second, prepared], run=True, skip=["Third"])


def test_one_class_under_two_names_makes_two_stages(root):
    write_graph([trainer("wide_l1", width=4), trainer("narrow", width=1), trainer()])

    stages, values = read("dvc.yaml")["stages"], read("params.yaml")
    assert {name: values[name]["params"]["width"] for name in values} == {
        "wide_l1": 4,
        "narrow": 1,
        "MaxEntropyL1": TrainArgs().width,
    }
    assert stages["wide_l1"]["params"] == ["wide_l1", {"versions.yaml": None}]
    assert "nodes/wide_l1/model.safetensors" in stages["wide_l1"]["outs"]
    assert stages["narrow"]["cmd"].endswith("MaxEntropyL1 --name narrow --no-save-lockfile")


def test_a_name_serves_one_stage(root):
    message = "dvc.yaml: 2 stages are called 'same'; give each its own name: MaxEntropyL1(name=...)"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        write_graph([trainer("same"), trainer("same")])
    assert not Path("dvc.yaml").exists()
    trainer("same").write_graph()
    before = texts()
    message = "^dvc.yaml: the stage 'same' exists already and runs 'zntrack run jemtrack"
    with pytest.raises(InputError, match=message):
        XEntropyAugmented(name="same", data=IMAGES).write_graph()
    assert texts() == before
    with pytest.raises(InputError, match="the name of a stage must be"):
        trainer("with.dot")


def test_a_stage_that_was_removed_can_be_written_again(shipped):
    before = texts()
    content = read("dvc.yaml")
    del content["stages"]["MaxEntropyL2"]
    Path("dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    edit("params.yaml", "n_valid: 180", "n_valid: 90")

    workflow.write_graph()

    assert read("dvc.yaml") == yaml.safe_load(before[0])
    assert read("params.yaml")["PrepareData"]["params"]["n_valid"] == 90


def test_an_objective_of_another_class_takes_its_place(shipped):
    node = MaxEntropyL1(data=IMAGES, objective=MaxEntropyL1Objective(entropy_weight=0.5))
    node.write_graph()
    assert read("params.yaml")["MaxEntropyL1"]["objective"]["entropy_weight"] == 0.5

    Made(name="Swapped", params=DataArgs()).write_graph()
    Made(name="Swapped", params=After()).write_graph()

    values = read("params.yaml")["Swapped"]["params"]
    assert values == {"lr": 0.1, "sizes": [1, 2], "added": False, "_cls": "test_graph_files.After"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dvc.yaml", "<<<<<<< HEAD\nstages:\n", "dvc.yaml:[12]: is not valid YAML"),
        ("params.yaml", "a: 1\na: 2\n", "params.yaml:2: a: stands twice, first in line 1"),
        ("params.yaml", "- a\n", "params.yaml must hold names and values"),
        ("params.yaml", "Made: 3\n", "params.yaml: Made must hold the stage's params, got 3"),
        ("params.yaml", "Made: {params: 3}\n", "params.yaml: Made.params must hold names"),
        ("zntrack.json", "<<<<<<< HEAD\n{\n", "zntrack.json is not valid JSON"),
    ],
)
def test_a_broken_file_is_named_and_nothing_is_written(root, name, text, message):
    Path(name).write_text(text)

    with pytest.raises(InputError, match=message):
        Made().write_graph()

    assert sorted(path.name for path in root.iterdir()) == sorted(["pyproject.toml", "src", name])
    assert Path(name).read_text() == text


@pytest.mark.parametrize("text", ["", "stages:\n", "# nothing yet\n", "stages: {}\nplots: []\n"])
def test_an_empty_file_is_filled(root, text):
    Path("dvc.yaml").write_text(text)

    Made().write_graph()

    assert list(read("dvc.yaml")["stages"]) == ["Made"]


def test_the_graph_is_written_in_the_project_s_root_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match="has no src/"):
        Made().write_graph()

    assert list(tmp_path.iterdir()) == []


class EditsMeanwhile(MaxEntropyL1):
    """A stage that a person edits the parameters beside, while its graph is made."""

    @classmethod
    def code_modules(cls, parameters):
        Path("params.yaml").write_text(Path("params.yaml").read_text() + "# my words\n")
        return []


def test_an_edit_while_the_graph_is_made_is_kept(root):
    write_graph([trainer()])
    before = texts()

    with pytest.raises(InputError, match=r"params.yaml was edited while the graph was made"):
        write_graph([EditsMeanwhile(name="Edited", data=IMAGES)])

    assert texts() == [before[0], before[1] + "# my words\n", before[2]]


@pytest.mark.parametrize("n_written", range(4))
def test_on_a_full_disk_no_file_is_written(n_written, root, monkeypatch):
    write_graph([trainer()])
    before, flush = texts(), os.fsync
    calls = iter(range(99))

    def full(descriptor: int) -> None:
        if next(calls) == n_written:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    Path("versions.yaml").unlink()  # so that all four are written
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_graph([trainer(), trainer("Another")])

    assert texts() == before
    assert not [*Path().glob("*unfinished*")]


def test_a_graph_that_is_killed_before_it_renames_its_files_changes_none(root, monkeypatch):
    write_graph([trainer()])
    before = texts()

    class Killed(BaseException):
        pass

    def kill(path: Path, target: Path) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            write_graph([trainer(), trainer("Third")])

    assert texts() == before
    write_graph([trainer(), trainer("Third")])
    assert "Third" in read("params.yaml")


def test_a_line_says_what_was_written(root, capsys):
    write_graph([PrepareData()])
    write_graph([PrepareData(), trainer()])
    write_graph([PrepareData(params=DataArgs(seed=2)), trainer()])
    write_graph([PrepareData(), trainer(load_path="model.safetensors")])
    write_graph([PrepareData(), trainer(load_path="model.safetensors")])

    assert capsys.readouterr().out.splitlines() == [
        "dvc.yaml: 1 stage added; wrote versions.yaml, params.yaml, dvc.yaml, zntrack.json",
        "dvc.yaml: 1 stage added; wrote params.yaml, dvc.yaml, zntrack.json",
        "dvc.yaml: no stage changed; wrote params.yaml, zntrack.json",
        "dvc.yaml: 1 stage changed; wrote params.yaml, dvc.yaml, zntrack.json",
        "dvc.yaml: 2 stages, nothing to change",
    ]


def test_a_folder_in_place_of_a_file_leaves_nothing_half_written(tmp_path):
    (tmp_path / "b").mkdir()

    with pytest.raises(OSError, match="Is a directory"):
        atomic_write_texts({tmp_path / "b": "text"})

    assert [*tmp_path.iterdir()] == [tmp_path / "b"]
