"""Classes and paths that a file names: no class runs that has another role, nothing writes out."""

import subprocess
from pathlib import Path

import hostile_canary
import pytest
import torch
from recipe_files import WARM_UP

from jemtrack.errors import InputError
from jemtrack.jem.training.forms import JemStep, OwnObjective
from jemtrack.loops.pipeline_file import pipeline_problems
from jemtrack.parameters import value_problems
from jemtrack.project.params import Section
from jemtrack.recipe.check import checked_recipe
from jemtrack.record.paths import RunPaths, build_tracker
from jemtrack.shared.class_path import (
    CALLBACK,
    OBJECTIVE,
    OPTIMIZER,
    SCHEDULER,
    TRACKER,
    class_problem,
)
from jemtrack.shared.components import imported
from jemtrack.train.optimizers import OwnOptimizer, OwnScheduler

RECIPE = WARM_UP.partition("trackers:")[0]
FITTING = [
    ("jemtrack.jem.objectives.cross_entropy.CrossEntropy", OBJECTIVE),
    ("jemtrack.jem.objectives.max_entropy_l1.MaxEntropyL1Objective", OBJECTIVE),
    ("jemtrack.jem.objectives.sampled_jem.SampledJEMObjective", OBJECTIVE),
    ("torch.optim.Rprop", OPTIMIZER),
    ("torch.optim.adadelta.Adadelta", OPTIMIZER),
    ("jemtrack.train.lion.Lion", OPTIMIZER),
    ("torch.optim.lr_scheduler.LinearLR", SCHEDULER),
    ("jemtrack.callbacks.best_weights.BestWeights", CALLBACK),
    ("jemtrack.trackers.tensorboard.TensorBoard", TRACKER),
]
FOREIGN = [
    ("subprocess.Popen", OBJECTIVE),
    ("unittest.TestCase", OBJECTIVE),
    ("functools.partial", OBJECTIVE),
    ("hostile_canary.Canary", OBJECTIVE),
    ("hostile_canary.Canary", OPTIMIZER),
    ("torch.optim.Rprop", SCHEDULER),
    ("torch.optim.lr_scheduler.LinearLR", OPTIMIZER),
    ("jemtrack.trackers.tensorboard.TensorBoard", CALLBACK),
    ("jemtrack.callbacks.best_weights.BestWeights", TRACKER),
    ("subprocess.Popen", TRACKER),
]


@pytest.mark.parametrize(("path", "role"), FITTING)
def test_the_source_of_a_class_tells_its_role_as_the_class_does(path, role):
    assert class_problem(path, role) == role.problem(imported(path)) == ""


@pytest.mark.parametrize(("path", "role"), FOREIGN)
def test_so_it_does_of_a_foreign_class(path, role):
    assert class_problem(path, role) == f"must be {role.what}, got {path!r}"
    assert role.problem(imported(path)) == f"must be {role.what}, and is none"


def test_a_class_of_one_s_own_may_inherit_by_any_kind_of_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/__init__.py").write_text("from .base import Base as Root\n")
    (tmp_path / "ours/base.py").write_text("import torch\nclass Base(torch.optim.SGD): ...\n")
    (tmp_path / "ours/loop.py").write_text("from .loop import Loop\nclass Mine(Loop): ...\n")
    (tmp_path / "theirs.py").write_text(
        "raise SystemExit('imported')\n"
        "from torch.optim import lr_scheduler as rates\n"
        "import ours\nfrom ours import Root\nfrom ours.base import *\n"
        "class A(Root): ...\nclass B(ours.Root): ...\nclass C(rates.StepLR): ...\n"
        "class D(A, object): ...\nclass E(make()): ...\nclass F(dict): ...\n"
    )

    fits = {
        name: [not class_problem(f"theirs.{name}", role) for role in (OPTIMIZER, SCHEDULER)]
        for name in "ABCDEF"
    }

    assert fits == {
        **{name: [True, False] for name in "ABD"},
        "C": [False, True],
        "E": [True, True],  # only running it would tell
        "F": [False, False],
    }
    assert class_problem("ours.loop.Mine", OPTIMIZER) == ""


@pytest.mark.parametrize("kind", ["objective", "optimizer", "scheduler", "callback", "tracker"])
@pytest.mark.parametrize("path", ["hostile_canary.Canary", "subprocess.Popen"])
def test_a_recipe_that_names_a_foreign_class_is_refused_and_nothing_runs(
    tmp_path, monkeypatch, kind, path
):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    entry, text = f"{{type: {path}, args: [id]}}", RECIPE
    text = {
        "objective": text.replace("{type: cross_entropy}", entry),
        "optimizer": text.replace("{type: AdamW, lr: 1e-3, betas: [0.9, 0.95]}", entry),
        "scheduler": text.replace("{type: CosineAnnealingLR, eta_min_factor: 0.1}", entry),
        "callback": text.replace("training:\n", f"training:\n  callbacks: [{entry}]\n"),
        "tracker": f"{text}trackers: [{entry}]\n",
    }[kind]
    (tmp_path / "recipe.yaml").write_text(text)

    file, problems = checked_recipe(tmp_path / "recipe.yaml")

    assert file is None
    assert any(f"got '{path}'" in str(problem) for problem in problems)
    assert hostile_canary.CALLS == []


def test_a_run_holds_the_class_itself_against_its_role(tmp_path, monkeypatch):
    """Its source may hide what it is."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hidden.py").write_text(
        "import hostile_canary\nbase = hostile_canary.Canary\nclass Hidden(base): ...\n"
    )
    weights = [torch.nn.Parameter(torch.zeros(1))]

    for make in (
        lambda: OwnObjective(type="hidden.Hidden").build(),
        lambda: OwnOptimizer(type="hidden.Hidden").make(weights),
        lambda: OwnScheduler(type="hidden.Hidden").make(torch.optim.SGD(weights, lr=0.1), 3),
    ):
        with pytest.raises(InputError, match=r"'hidden\.Hidden' must be .*, and is none"):
            make()
    assert hostile_canary.CALLS == []


def test_an_option_that_the_class_refuses_is_one_line():
    chosen = OwnOptimizer(type="torch.optim.Rprop", options={"lr": -1.0})

    with pytest.raises(InputError, match="does not take its options: Invalid learning rate"):
        chosen.make([torch.nn.Parameter(torch.zeros(1))])


def test_what_zntrack_json_names_must_be_a_dataclass():
    section = Section("Stage", "objective", "hostile_canary.Canary", {"x": 1})

    assert section.problems == [
        "zntrack.json: Stage.objective must be a dataclass, got hostile_canary.Canary"
    ]
    assert hostile_canary.CALLS == []


OUTSIDE = ["../../params.yaml", "/tmp/history.csv", "a/../../b", "..\\b", "C:\\b", "", "a\0b"]
PIPELINE = "pipeline: {type: countdown, n_epochs: 1}\n"


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_tracker_or_callback_of_a_file_writes_outside_of_the_run_s_folder(tmp_path, path):
    quoted = f'"{path}"'.replace("\\", "\\\\").replace("\0", "\\0")
    callbacks = (
        f"callbacks: [{{type: best_weights, metric: valid_nll, file: {quoted}}}, "
        f"{{type: periodic_weights, every: 1, folder: {quoted}}}]\n"
    )
    trackers = f"trackers: [{{type: history, path: {quoted}}}, {{type: jsonl, folder: {quoted}}}]\n"
    recipe, pipeline = tmp_path / "recipe.yaml", tmp_path / "pipeline.yaml"
    recipe.write_text(RECIPE.replace("training:\n", f"training:\n  {callbacks}") + trackers)
    pipeline.write_text(PIPELINE + callbacks + trackers)
    wrong = ("callbacks[0].file", "callbacks[1].folder", "trackers[0].path", "trackers[1].folder")

    for problems in (checked_recipe(recipe)[1], pipeline_problems(pipeline)):
        places = {problem.where.removeprefix("training.") for problem in problems}
        assert {*wrong} <= places


OWN = """\
from jemtrack.record.paths import RunPath
from jemtrack.events.handlers import Tracker

class Notes(Tracker):
    path: str = RunPath(str, "the file", default="notes")
"""


def test_nor_does_a_tracker_of_one_s_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_notes.py").write_text(OWN)
    paths, entry = RunPaths(tmp_path / "run", tmp_path), {"type": "own_notes.Notes"}

    assert Path(build_tracker(entry, paths).path) == tmp_path / "run" / "notes"
    with pytest.raises(InputError, match="path must be a path in the folder that each run has"):
        build_tracker({**entry, "path": "../../params.yaml"}, paths)


@pytest.mark.parametrize(
    ("objective", "freeze", "uncond", "is_reached"),
    [
        ({"type": "cross_entropy"}, ["trunk", "class_head"], False, False),
        ({"type": "cross_entropy"}, ["trunk", "class_head"], True, False),
        ({"type": "cross_entropy"}, ["trunk", "energy_head"], True, True),
        ({"type": "max_entropy_l1"}, ["trunk", "class_head"], False, False),
        ({"type": "max_entropy_l1"}, ["trunk", "class_head"], True, True),
        ({"type": "sampled_jem"}, ["trunk", "class_head"], False, False),
        ({"type": "sampled_jem"}, ["trunk", "class_head"], True, True),
        ({"type": "sampled_jem", "p_y_given_x_weight": 0.0}, ["trunk", "energy_head"], True, False),
    ],
)
def test_a_step_trains_what_its_loss_depends_on(tmp_path, objective, freeze, uncond, is_reached):
    frozen = [f"network.{part}" for part in freeze]
    assert not value_problems(JemStep, {"name": "a", "n_epochs": 1, "freeze": frozen})
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{uncond: {str(uncond).lower()}}}\ntraining:\n  pipeline:\n    steps:\n"
        f"      - {{name: a, n_epochs: 1, objective: {objective}, freeze: {frozen}}}\n"
    )

    file, problems = checked_recipe(tmp_path / "recipe.yaml")

    assert (file is not None) == is_reached, problems
    if not is_reached:
        assert "on which the loss of" in str(problems[0])
