"""The recipe of a trainer: steps of its own, or the ordinary training by its parameters."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.jem.family import FAMILY, NETWORK
from jemtrack.parameters import shown
from jemtrack.recipe.read import read_recipe, recipe_from_mapping
from jemtrack.stages.train_args import TrainArgs
from jemtrack.train.components import CALLBACK, load_components
from jemtrack.train.phase import Objective
from jemtrack.train.recipe import Family, Recipe, build_objective, objective_entry, objective_path

_UNKNOWN = {"type": "unknown"}


def trainer_family(objective: Any, *, validates: bool = True) -> Family:
    """Describe the recipes of a trainer: its objective serves every step that names none.

    An objective of None is not known. A trainer that has no images to validate on has none of
    their metrics.
    """
    return replace(
        FAMILY,
        usual_objective=objective_entry(FAMILY, objective) if objective else _UNKNOWN,
        epoch_metrics=FAMILY.epoch_metrics if validates else (),
    )


def trainer_recipe(recipe: Any, params: TrainArgs, family: Family, where: str) -> Recipe:
    """Make the recipe that a mapping, or the file at a path, describes; `where` leads to it.

    One that has no steps has that of an ordinary training.

    Raises:
        InputError: a line for each problem.
    """
    if isinstance(recipe, str):
        return _from_file(Path(recipe), family, where)
    if not isinstance(recipe, Mapping | None):
        raise InputError(
            f"{where} must hold defaults, steps, divergence and callbacks, or be the path of a "
            f"recipe file, got {shown(recipe)}"
        )
    given = recipe or {}
    steps = {} if {"steps", "defaults"} & {*given} else {"steps": [_ordinary_step(params)]}
    callbacks = load_components(CALLBACK) if "callbacks" in given else {}
    return recipe_from_mapping({**steps, **given}, where, family, callbacks)


def step_objectives(recipe: Recipe, own: Any, where: str) -> list[Objective]:
    """Make each step's objective; where it is the trainer's `own`, it is that very one.

    Raises:
        InputError: a line for each option of a user's own objective that does not fit.
    """
    usual = trainer_family(own).usual_objective
    made, found = [], []
    for number, step in enumerate(recipe.steps):
        place = f"{where}.steps[{number}].objective"
        try:
            is_own = step.objective == usual
            made.append(own if is_own else build_objective(FAMILY, step.objective, place))
        except InputError as error:
            found.append(str(error))
    if found:
        raise InputError("\n".join(found))
    return made


def recipe_problems(
    recipe: Any, params: TrainArgs | None, objective: Any, where: str, *, validates: bool = True
) -> list[str]:
    """Say what is wrong with a recipe, a line a problem.

    Without `params` or `objective`, which may be at fault themselves, what needs them is let pass.
    """
    family = trainer_family(objective, validates=validates)
    try:
        chosen = trainer_recipe(recipe, params or TrainArgs(), family, where)
        step_objectives(chosen, objective, where)
    except InputError as error:
        return str(error).splitlines()
    return []


def recipe_modules(recipe: Any) -> list[str]:
    """Name the modules of the objectives and callbacks that a trainer's recipe names.

    Raises:
        InputError: a line for each problem of the recipe.
    """
    chosen = trainer_recipe(recipe, TrainArgs(), trainer_family(None), "recipe")
    kinds = {str(step.objective["type"]) for step in chosen.steps} - {_UNKNOWN["type"]}
    modules = [objective_path(FAMILY, kind).rpartition(".")[0] for kind in sorted(kinds)]
    known = load_components(CALLBACK) if chosen.callbacks else {}
    types = [each["type"] for each in chosen.callbacks]
    # One of the user's own is named by its dotted path.
    own = [kind.rpartition(".")[0] for kind in types if kind not in known]
    return [*modules, *(known[kind].__module__ for kind in types if kind in known), *own]


def _ordinary_step(params: TrainArgs) -> dict[str, Any]:
    adam = {
        "type": "Adam",
        "lr": params.lr,
        "weight_decay": params.weight_decay,
        "warm_up_steps": params.warm_up_steps,
    }
    cosine = {NETWORK: {"type": "CosineAnnealingLR"}} if params.schedule == "cosine" else {}
    return {
        "name": "train",
        "n_epochs": params.n_epochs,
        "freeze": [f"{NETWORK}.trunk", f"{NETWORK}.energy_head"] if params.clf_only else [],
        "optimization": {"optimizers": {NETWORK: adam}, "schedulers": cosine},
    }


def _from_file(path: Path, family: Family, where: str) -> Recipe:
    try:
        file = read_recipe(path, family)
    except InputError as error:
        raise InputError(
            "\n".join(f"{where}: {line}" for line in str(error).splitlines())
        ) from error
    if file.family.name != family.name:
        raise InputError(
            f"{where}: {path} must be a recipe for {family.name}, got one for {file.family.name}"
        )
    # For files of other programs, and without an effect.
    if given := [name for name in file.given if name != "training.workers"]:
        raise InputError(
            f"{where}: {path} must not set {', '.join(given)}: the stage's own parameters say it, "
            "so that the file may hold no more than training.pipeline, divergence and callbacks"
        )
    return file.recipe
