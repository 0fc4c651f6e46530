"""Recipes in YAML files: what the engine reads, with the families, callbacks and trackers."""

import importlib
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from jemtrack.component_list import CALLBACK, TRACKER, load_components
from jemtrack.engine import recipe_file
from jemtrack.engine.choices import AtLeastOne, Count, NotNegative
from jemtrack.engine.family import Family
from jemtrack.engine.hardware import Hardware
from jemtrack.engine.recipe_file import FileForms, RecipeFile
from jemtrack.engine.recipe_form.document import Problem
from jemtrack.parameters import parameters

# Where each family's FAMILY stands; a file that says nothing of its family is of the first.
_FAMILIES = {"jem": "jemtrack.jem.recipe_family", "flux": "jemtrack.flux.recipe_family"}

Text = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@parameters
class DataSettings:
    """The section `data`: the fields of PrepareData's DataArgs, which are explained there."""

    dataset: Text = "digits"
    data_root: Text = "data"
    n_classes: Annotated[int, Field(ge=2)] = 10
    n_valid: Count = 180
    seed: Seed = 1


@parameters
class TrainingSettings(Hardware):
    """The section `training`, apart from `pipeline`, `divergence` and `callbacks`.

    Attributes:
        batch_size: images in an optimization step.
        workers: read for files of other programs; images are in memory, nobody loads them.
        seed: draws initialisation, batches and noise; none: the data's.
        sigma: standard deviation of the noise on images scaled to [-1, 1].
        labels_per_class: labelled images of each class; 0 or -1: all are labelled.
        n_steps: Langevin steps of the chains of the objective `sampled_jem`.
        eval_every: epochs between looks at the validation images.
    """

    batch_size: AtLeastOne = 64
    workers: Count | None = None
    seed: Seed | None = None
    sigma: NotNegative = 0.03
    labels_per_class: Annotated[int, Field(ge=-1)] = -1
    n_steps: Count = 20
    eval_every: AtLeastOne = 1


def families() -> dict[str, Family]:
    """List the families of models that a recipe can be for, by name."""
    return {name: importlib.import_module(path).FAMILY for name, path in _FAMILIES.items()}


def file_forms(family: Family | None = None) -> FileForms:
    """Say what a recipe file of this project may hold; `family` is another form of one of them."""
    changed = {family.name: family} if family else {}
    return FileForms(
        families={**families(), **changed},
        data=DataSettings,
        training=TrainingSettings,
        callbacks=partial(load_components, CALLBACK),
        trackers=partial(load_components, TRACKER),
    )


def read_recipe(path: Path, family: Family | None = None) -> RecipeFile:
    """Read a recipe file; `family` is another form of one of the project's.

    Raises:
        InputError: a line for each problem.
    """
    return recipe_file.read_recipe(path, file_forms(family))


def recipe_problems(path: Path) -> list[Problem]:
    """Give every problem of a recipe file, in the order of its lines."""
    return recipe_file.recipe_problems(path, file_forms())
