"""The recipe of a trainer: steps of its own, or the ordinary training by its parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.parameters import build, format_value
from jemtrack.recipe.check import file_problems, mapping_problems
from jemtrack.recipe.read import RawFile, RawRecipe
from jemtrack.stages.train_args import TrainArgs
from jemtrack.train.components import CALLBACK, load_components
from jemtrack.train.recipe import Recipe


def trainer_recipe(
    recipe: Any, params: TrainArgs, objective: Any, where: str, *, validates: bool = True
) -> Recipe:
    """Make the recipe that a mapping, or the file at a path, describes; `where` leads to it.

    Without steps, it is that of the ordinary training. The trainer's `objective` serves the steps
    that name none; None is one that is not known. Without images to validate on (`validates`),
    there are no metrics of validation.

    Raises:
        InputError: a line for each problem.
    """
    if recipe is None or recipe == {}:
        return Recipe(steps=(params.ordinary_step(),))
    family, usual = params.family, params.family.usual_values(objective)
    if isinstance(recipe, str):
        return _from_file(Path(recipe), params, usual, where, validates)
    if not isinstance(recipe, Mapping):
        raise InputError(
            f"{where} must hold defaults, steps, divergence and callbacks, or be the path of a "
            f"recipe file, got {format_value(recipe)}"
        )
    raw = RawRecipe(recipe, family.step, usual, params.ordinary_step())
    if problems := mapping_problems(raw, where, validates=validates):
        raise InputError("\n".join(problems))
    return raw.build()


def _from_file(
    path: Path, params: TrainArgs, usual: Mapping[str, Any], where: str, validates: bool
) -> Recipe:
    raw = RawFile(path, usual)
    if problems := file_problems(raw, validates=validates):
        raise InputError("\n".join(f"{where}: {problem.of(path)}" for problem in problems))
    file = raw.build()
    if file.family.name != params.family.name:
        name = params.family.name
        raise InputError(
            f"{where}: {path} must be a recipe for {name}, got one for {file.family.name}"
        )
    # `workers` is for files of other programs, and without an effect.
    if given := [name for name in file.given if name != "training.workers"]:
        raise InputError(
            f"{where}: {path} must not set {', '.join(given)}: the stage's own parameters say it, "
            "so that the file may hold no more than training.pipeline, divergence and callbacks"
        )
    return file.recipe


def recipe_problems(
    recipe: Any, params: TrainArgs | None, objective: Any, where: str, *, validates: bool = True
) -> list[str]:
    """List what is wrong with a recipe, a line a problem.

    Without `params` or `objective`, which may have problems themselves, what needs them passes.
    """
    try:
        trainer_recipe(recipe, params or TrainArgs(), objective, where, validates=validates)
    except InputError as error:
        return str(error).splitlines()
    return []


def recipe_modules(recipe: Any, params: Mapping[str, Any]) -> list[str]:
    """Name the modules of the classes that a trainer's recipe and its `params` name.

    Raises:
        InputError: a line for each problem of the recipe.
    """
    values = {name: params[name] for name in params if name != "_cls"}
    chosen = trainer_recipe(recipe, build(TrainArgs, values, "params"), None, "recipe")
    known = load_components(CALLBACK) if chosen.callbacks else {}
    types = [str(each["type"]) for each in chosen.callbacks]
    paths = [path for step in chosen.steps for path in step.class_paths]
    # One of the user's own is named by its dotted path.
    paths += [kind for kind in types if kind not in known]
    modules = [path.rpartition(".")[0] for path in dict.fromkeys(paths)]
    return [*modules, *(known[kind].__module__ for kind in types if kind in known)]
