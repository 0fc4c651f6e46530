"""A trainer's recipe: what it does, what the stage depends on by it, and what is wrong with it."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from project import ROOT
from stage_runs import SMALL, are_equal, history_in, model_in, prepared_file, ran, weights_in

from jemtrack.commands.check import check
from jemtrack.commands.scratch import unfinished_trainings
from jemtrack.data.images import DataSplits
from jemtrack.errors import InputError
from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.project import graph as files
from jemtrack.project.provenance import determinants
from jemtrack.shared.hardware import chosen_device
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.trainer import Trainer
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented
from jemtrack.train.launch import Runtime
from jemtrack.train.phase import Phase
from jemtrack.train.recipe import Transition
from jemtrack.train.run import Training

HEAD = {
    "name": "head",
    "n_epochs": 1,
    "objective": {"type": "cross_entropy"},
    "freeze": ["network.trunk"],
    "optimization": {"optimizers": {"network.class_head": {"type": "Adam", "lr": 0.01}}},
}
ALL = {
    "name": "all",
    "n_epochs": 2,
    "max_steps": 2,
    "optimization": {
        "optimizers": {"network": {"type": "SGD", "lr": 0.01}},
        "schedulers": {"network": {"type": "StepLR", "step_size": 1}},
    },
}
RECIPE = {"steps": [HEAD, ALL]}
FILE = Path("recipes/mine.yaml")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which everything here stands in."""
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def library(project: Path) -> None:
    """The project is that of jemtrack itself, whose stages depend on its files."""
    (project / "src").rmdir()
    (project / "src").symlink_to(ROOT / "src")


def trainer(recipe: Any = (), cls: type[Trainer] = MaxEntropyL1, **changed: Any) -> Trainer:
    own = {"objective": changed.pop("objective")} if "objective" in changed else {}
    params = TrainArgs(**{**SMALL, **changed})
    given = {} if recipe == () else {"recipe": recipe}
    return cls(data=prepared_file(), params=params, **given, **own)


def described(node: Trainer) -> Training:
    return node.training(DataSplits.load(prepared_file()), Runtime(chosen_device("auto")))


def written(pipeline: Any, **training: Any) -> str:
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(yaml.safe_dump({"training": {"pipeline": pipeline, **training}}))
    return str(FILE)


def deps(node: Trainer) -> list[str]:
    return yaml.safe_load(Path("dvc.yaml").read_text())["stages"][node.name]["deps"]


def change(recipe: Any, node: Trainer) -> None:
    """Put the recipe into params.yaml by hand."""
    content = yaml.safe_load(Path("params.yaml").read_text())
    content[node.name]["recipe"] = recipe
    Path("params.yaml").write_text(yaml.safe_dump(content))


def said_of(recipe: Any, **changed: Any) -> list[str]:
    """Give what check and graph, which agree, say of the recipe."""
    node = trainer(**changed)
    files.write_graph([node])
    change(recipe, node)
    before = Path("dvc.yaml").read_text()
    found = []
    for command in (check, lambda: files.write_graph([node])):
        with pytest.raises(InputError) as caught:
            command()
        found.append(str(caught.value).splitlines())
    assert found[0] == found[1]
    assert Path("dvc.yaml").read_text() == before
    return found[0]


def test_an_ordinary_training_is_the_recipe_of_one_step_that_says_the_same():
    params = {"n_epochs": 2, "lr": 0.02, "weight_decay": 0.1, "clf_only": True, "norm": "batch"}
    plain = ran(trainer(objective=MaxEntropyL1Objective(entropy_weight=0.5), **params))
    model, history = model_in(plain), (plain / "history.csv").read_bytes()

    step = {
        "name": "train",
        "n_epochs": 2,
        "objective": {"type": "max_entropy_l1", "entropy_weight": 0.5},
        "freeze": ["network.trunk", "network.energy_head"],
        "optimization": {
            "optimizers": {"network": {"type": "Adam", "lr": 0.02, "weight_decay": 0.1}}
        },
    }
    # What the parameters say of an ordinary training has no effect then.
    spelled = ran(trainer({"steps": [step]}, n_epochs=7, lr=1.0, norm="batch"))

    assert are_equal(model.model.state_dict(), weights_in(spelled))
    assert (spelled / "history.csv").read_bytes() == history


def test_the_steps_of_a_recipe_are_trained_in_turn():
    start = described(trainer(RECIPE)).state.models["network"].state_dict()
    head = weights_in(ran(trainer({"steps": [HEAD]})))
    folder = ran(trainer(RECIPE))

    assert are_equal(start, head, "trunk.")
    assert not are_equal(start, head, "class_head.")
    assert not are_equal(start, weights_in(folder), "trunk.")
    history = history_in(folder)
    assert history.epoch.tolist() == [1, 2, 3]
    # The trainer's objective serves the step that names none.
    assert history.train_entropy_penalty.notna().tolist() == [False, True, True]


def phases(recipe: Any, **changed: Any) -> list[Phase]:
    return [*described(trainer(recipe, **changed)).phases]


def test_a_step_becomes_what_the_engine_trains():
    transition = {"mode": "loss_threshold", "metric": "loss", "threshold": 0.1, "window": 7}
    first, second = phases(
        {"steps": [HEAD, {**ALL, "transition_on": transition}], "divergence": {"max_loss": 9.0}},
        objective=MaxEntropyL1Objective(entropy_weight=3.0),
    )

    assert (first.name, first.step.frozen, first.n_batches) == ("head", ("network.trunk",), 3)
    assert (second.name, second.step.frozen, second.n_batches) == ("all", (), 2)
    assert second.objective == MaxEntropyL1Objective(entropy_weight=3.0)
    assert (second.step.transition, second.max_loss) == (Transition(**transition), 9.0)


def test_each_step_sees_the_images_in_an_order_and_noise_of_its_own():
    (ordinary,) = phases({})
    first, second, again = phases({"steps": [HEAD, ALL, {**ALL, "name": "again"}]})
    seen = [
        next(iter(phase.batches.epoch(0))).images_BCHW for phase in (ordinary, first, second, again)
    ]

    assert seen[0].equal(seen[1])
    assert not seen[1].equal(seen[2])
    assert not seen[2].equal(seen[3])
    few = [
        next(iter(phase.batches.epoch(0))).labels_B.bincount().tolist()
        for phase in phases(RECIPE, labels_per_class=2)
    ]
    assert few == [[2] * 4] * 2


def test_what_stands_beside_the_steps_serves_the_ordinary_training_too():
    recipe = described(trainer({"divergence": {"action": "retry", "max_retries": 5}})).recipe

    assert [step.name for step in recipe.steps] == ["train"]
    assert (recipe.divergence.action, recipe.divergence.max_retries) == ("retry", 5)


def test_a_file_is_the_same_recipe_and_one_of_the_stage_s_deps():
    by_mapping = described(trainer({**RECIPE, "divergence": {"action": "retry"}})).recipe
    node = trainer(written(RECIPE, divergence={"action": "retry"}, workers=3))
    files.write_graph([node])

    assert described(node).recipe == by_mapping
    assert str(FILE) in deps(node)
    check()
    change("recipes/other.yaml", node)
    FILE.rename("recipes/other.yaml")
    with pytest.raises(InputError, match=r"MaxEntropyL1 does not depend on recipes/other\.yaml"):
        check()


@pytest.mark.usefixtures("library")
def test_a_stage_depends_on_the_code_of_the_objectives_that_its_recipe_names():
    path = "src/jemtrack/jem/objectives/max_entropy_l2.py"
    step = {**ALL, "objective": {"type": "max_entropy_l2"}}
    plain, chosen = trainer(cls=XEntropyAugmented), trainer({"steps": [step]}, XEntropyAugmented)
    files.write_graph([plain])
    assert path not in deps(plain)

    # An edit by hand leaves dvc.yaml behind, until the graph is written anew.
    change(chosen.recipe, plain)
    with pytest.raises(InputError, match=f"deps lacks .*{path}"):
        check()
    with pytest.raises(SystemExit, match=f"XEntropyAugmented does not depend on {path}"):
        XEntropyAugmented.from_rev(name=plain.name).run()
    files.write_graph([plain])

    assert path in deps(plain)
    check()


MINE = """
from torch.optim import SGD


class Halved(SGD):
    def __init__(self, params, lr, share=1.0):
        super().__init__(params, lr=share * lr)
"""


@pytest.fixture
def mine(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own."""
    (project / "my_optimizers.py").write_text(MINE)
    monkeypatch.syspath_prepend(project)
    yield
    sys.modules.pop("my_optimizers", None)


@pytest.mark.usefixtures("mine")
def test_an_optimizer_of_one_s_own_trains_by_the_parameters_and_in_a_recipe():
    own = {"type": "my_optimizers.Halved", "share": 0.5}
    files.write_graph([node := trainer(optimizer=own, lr=0.02)])
    step = {"name": "train", "n_epochs": 1, "optimization": {"optimizers": {}}}
    step["optimization"]["optimizers"]["network"] = {**own, "lr": 0.02}
    check()
    assert "my_optimizers" not in sys.modules  # it is looked up, and not run

    plain = weights_in(ran(trainer(optimizer="SGD", lr=0.01)))
    for found in (weights_in(ran(node)), weights_in(ran(trainer({"steps": [step]})))):
        torch.testing.assert_close(found, plain)


@pytest.mark.usefixtures("mine")
def test_what_a_later_step_s_own_optimizer_does_not_take_is_named_before_anything_is_trained():
    wrong = {"type": "my_optimizers.Halved", "lr": 0.1, "part": 0.5}
    later = {**ALL, "optimization": {"optimizers": {"network": wrong}}}

    with pytest.raises(InputError, match=r"Halved does not take its options: .*'part'"):
        described(trainer({"steps": [HEAD, later]}))


def test_check_runs_no_code_of_one_s_own_objective(project, monkeypatch):
    (project / "my_objectives.py").write_text(
        "class Mine:\n    def __call__(self, models, batch): ...\nraise RuntimeError('it ran')\n"
    )
    monkeypatch.syspath_prepend(project)
    step = {**ALL, "objective": {"type": "my_objectives.Mine", "delta": 1}}
    files.write_graph([trainer({"steps": [step]})])

    check()

    with pytest.raises(InputError, match="cannot be imported: RuntimeError: it ran"):
        described(trainer({"steps": [step]}))


def test_a_training_with_another_recipe_has_another_folder_of_checkpoints():
    def folder(recipe: Any) -> Path:
        node = trainer(recipe)
        return determinants(node.name, described(node).parameters).folder

    files.write_graph([trainer()])
    retry = {"divergence": {"action": "retry"}}
    faster = {"steps": [HEAD, {**ALL, "n_epochs": 1}]}
    path = written(RECIPE)
    adam, adamw = (
        {"steps": [{**ALL, "optimization": {"optimizers": {"network": {"type": name, "lr": 0.1}}}}]}
        for name in ("Adam", "AdamW")
    )

    folders = [folder(recipe) for recipe in ({}, retry, RECIPE, faster, adam, adamw, path)]
    assert len({*folders}) == 7
    assert folder(RECIPE) == folders[2]
    written({"steps": [HEAD]})
    assert folder(path) != folders[6]


def test_an_unfinished_training_serves_until_its_recipe_changes():
    files.write_graph([node := trainer(RECIPE)])
    found = determinants(node.name, described(node).parameters)
    found.folder.mkdir(parents=True)
    found.write()
    assert [training.changed for training in unfinished_trainings()] == [()]

    change({"divergence": {"action": "retry"}}, node)
    assert [training.changed for training in unfinished_trainings()] == [
        ("recipe.divergence", "recipe.steps")
    ]


@pytest.mark.usefixtures("library")
def test_callbacks_have_their_say_and_their_code_is_a_dep():
    path = "src/jemtrack/callbacks/ema.py"
    plain = weights_in(ran(node := trainer(n_epochs=2)))
    assert path not in deps(node)

    averaged = weights_in(ran(trainer({"callbacks": [{"type": "ema", "decay": 0.5}]}, n_epochs=2)))
    assert not are_equal(plain, averaged)
    assert path in deps(node)

    stopping = {"type": "early_stopping", "metric": "train_loss", "patience": 1}
    recipe = {"callbacks": [{**stopping, "least_change": 1e9}]}
    assert history_in(ran(trainer(recipe, n_epochs=9))).epoch.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("recipe", "problems"),
    [
        (3, [" must hold defaults, steps, divergence and callbacks, or be the path of a recipe"]),
        ([HEAD], [" must hold defaults, steps, divergence and callbacks, or be the path of a"]),
        ({"defaults": {"max_steps": 1}}, [".steps is missing: it must hold a list of steps"]),
        (
            {"divergence": {"action": "x"}},
            [".divergence.action must be one of 'fail' or 'retry', got 'x'"],
        ),
        ({"callbacks": [{"type": "erly"}]}, [".callbacks[0].type must be a callback, got 'erly'"]),
        ({"stepz": []}, [".stepz is not known here; did you mean steps?"]),
        (
            {"steps": [{**HEAD, "n_epochs": 0}, {**ALL, "name": "head", "freez": []}]},
            [
                ".steps[0].n_epochs must be >= 1, got 0",
                ".steps[1].freez is not known here; did you mean freeze?",
                ".steps[1].name must be a name of its own, but step 1 has 'head'",
            ],
        ),
        (
            {
                "steps": [
                    {
                        **ALL,
                        "objective": {"type": "jemtrack.jem.training.batches.TrainingBatchez"},
                    }
                ]
            },
            [".steps[0].objective.type must be the dotted path of a class"],
        ),
        ("gone.yaml", [": gone.yaml: cannot be read: No such file or directory"]),
    ],
)
def test_every_problem_of_a_recipe_is_told_by_its_path(recipe, problems):
    said = said_of(recipe)

    assert len(said) == len(problems)
    for line, problem in zip(said, problems, strict=True):
        assert line.startswith(f"params.yaml: MaxEntropyL1.recipe{problem}")


def test_every_problem_of_a_file_is_told_by_its_line():
    path = written({"steps": [{**HEAD, "n_epochs": 0}, {**ALL, "freez": []}]})

    assert [line.partition(": must")[0] for line in said_of(path)] == [
        f"params.yaml: MaxEntropyL1.recipe: {path}:6: training.pipeline.steps[0].n_epochs",
        f"params.yaml: MaxEntropyL1.recipe: {path}:15: training.pipeline.steps[1].freez: "
        "is not known here; did you mean freeze?",
    ]


def test_a_word_is_a_word_in_params_yaml_as_dvc_has_it():
    """To YAML 1.1 `on` is a boolean: `check` asks for quotes, and ZnTrack reads it as DVC does."""
    files.write_graph([node := trainer()])
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("recipe: {}", "recipe: {on: off, yes: true}"))

    with pytest.raises(InputError, match=r"recipe\.on: is not the same to all readers"):
        check()
    assert type(node).from_rev().recipe == {"on": "off", "yes": True}


def test_a_file_may_not_say_what_the_stage_s_own_parameters_say():
    path = written(RECIPE, batch_size=8, workers=2)
    content = {**yaml.safe_load(FILE.read_text()), "data": {"seed": 1}, "model": {"width": 3}}
    FILE.write_text(yaml.safe_dump(content))

    (said,) = said_of(path)

    assert said.startswith(
        f"params.yaml: MaxEntropyL1.recipe: {path} must not set data.seed, model.width, "
        "training.batch_size: the stage's own parameters say it"
    )


def test_a_recipe_of_another_family_is_refused():
    path = written({"steps": [{"name": "a", "n_epochs": 1, "train_vae": True}]})

    assert said_of(path) == [
        f"params.yaml: MaxEntropyL1.recipe: {path} must be a recipe for jem, got one for flux"
    ]


def test_a_fault_of_the_parameters_is_not_told_of_the_recipe_too():
    """The ordinary training's step is made of the parameters."""
    files.write_graph([node := trainer({"divergence": {"action": "retry"}})])
    content = yaml.safe_load(Path("params.yaml").read_text())
    content[node.name]["params"]["n_epochs"] = 0
    content[node.name]["objective"]["entropy_weight"] = -1
    Path("params.yaml").write_text(yaml.safe_dump(content))

    with pytest.raises(InputError) as caught:
        check()

    assert [line.partition(" must")[0] for line in str(caught.value).splitlines()] == [
        "params.yaml: MaxEntropyL1.params.n_epochs",
        "params.yaml: MaxEntropyL1.objective.entropy_weight",
    ]


def test_a_metric_of_validation_needs_images_to_validate_on(capsys):
    transition = {"mode": "loss_threshold", "metric": "valid_nll", "threshold": 0.1}
    node = trainer({"steps": [{**ALL, "transition_on": transition}]})
    data = DataSplits.load(node.data)
    none = type(data.valid)(data.valid.images_NCHW[:0], data.valid.labels_N[:0])
    dataclasses.replace(data, valid=none).save(node.data)
    files.write_graph([node])

    with pytest.raises(SystemExit) as caught:
        node.run()

    assert str(caught.value) == (
        "MaxEntropyL1: params.yaml: MaxEntropyL1.recipe.steps[0].transition_on.metric must be a "
        "metric of the step all, got 'valid_nll'; it has cross_entropy, entropy_penalty, loss, "
        "train_cross_entropy, train_entropy_penalty, train_loss; the data were prepared with "
        "n_valid 0"
    )


def test_the_average_is_what_is_saved_where_there_is_one():
    training = described(trainer())
    average = described(trainer()).state.models["network"]
    average.requires_grad_(False)
    for weight in average.parameters():
        weight.fill_(0.5)
    training.state.averages["network"] = average

    training.save(Path("model.safetensors"))

    assert are_equal(weights_in(Path()), average.state_dict())
