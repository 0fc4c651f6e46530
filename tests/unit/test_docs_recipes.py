"""docs/recipes.md: its examples are sound, and it names all that a recipe can say."""

import dataclasses
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from jemtrack.jem.training.family import FAMILY
from jemtrack.jem.training.forms import OBJECTIVES, JemSettings, JemStep
from jemtrack.parameters import build, parameter_names
from jemtrack.recipe.check import checked_recipe, step_names
from jemtrack.recipe.read import DataSettings
from jemtrack.shared.components import CALLBACK, load_components
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.training_args import trainer_recipe
from jemtrack.train.optimizers import OPTIMIZERS, SCHEDULERS
from jemtrack.train.recipe import Divergence, Transition

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "recipes.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
FILES = [block for block in BLOCKS if "training:" in block]


@pytest.mark.parametrize("block", FILES)
def test_a_file_that_is_shown_has_no_problem(block, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(block)

    assert checked_recipe(path)[1] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in FILES])
def test_a_stage_s_recipe_that_is_shown_has_no_problem(block, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text(FILES[1])
    ((_, values),) = YAML(typ="safe", pure=True).load(block).items()

    params = build(TrainArgs, values.get("params", {}), "here")
    assert trainer_recipe(values.get("recipe"), params, None, "here").steps


def test_the_example_that_is_shown_is_the_one_that_there_is():
    yaml = YAML(typ="safe", pure=True)

    assert yaml.load(FILES[0]) == yaml.load(ROOT / "recipes" / "two_phase.yaml")


def test_all_that_a_recipe_can_say_is_named():
    choices = {**OPTIMIZERS, **SCHEDULERS}
    names = {
        *step_names(JemStep),
        *JemStep.models,
        *OBJECTIVES,
        *JemStep.validation_metrics({}),
        *load_components(CALLBACK),
        *choices,
        *(name for cls in choices.values() for name in parameter_names(cls)),
    }
    for cls in (Transition, Divergence, DataSettings, JemSettings, FAMILY.shape):
        names |= {field.name for field in dataclasses.fields(cls)}

    said = {*re.findall(r"[\w.]+", TEXT)}
    assert sorted(names - said) == []
