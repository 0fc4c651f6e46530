"""The data and the trackers of a recipe file."""

import dataclasses
from pathlib import Path

from jemtrack.data.images import DataSplits
from jemtrack.data.splits import ChosenFold, prepare
from jemtrack.errors import InputError, ParameterError
from jemtrack.events.handlers import EventHandler
from jemtrack.parameters import parameter_names
from jemtrack.recipe.check import file_problems
from jemtrack.recipe.read import RecipeFile
from jemtrack.record.jsonl import JsonLines
from jemtrack.record.paths import RunPaths, build_tracker
from jemtrack.shared.components import TRACKER, load_components
from jemtrack.trackers.console import default_trackers

_PRINT_EVERY = 100


def prepared(file: RecipeFile, fold: ChosenFold | None = None) -> DataSplits:
    """Read and split the images; all that is drawn later follows from the training's seed.

    Raises:
        InputError: if they are missing, or the section `data` does not fit them.
    """
    chosen = file.data
    try:
        data = prepare(
            chosen.dataset,
            Path(chosen.data_root),
            chosen.n_classes,
            chosen.n_valid,
            chosen.seed,
            fold,
        )
    except ParameterError as error:
        raise InputError(f"{file.path}: data.{error}") from error
    seed = file.training.seed
    return data if seed is None else dataclasses.replace(data, seed=seed)


def check_data(file: RecipeFile, data: DataSplits) -> None:
    """Check what only the data can tell.

    Raises:
        InputError: if model, training or a metric of validation do not fit them.
    """
    try:
        file.family.check_data(file.model, file.training, data)
    except ParameterError as error:
        is_of_model = str(error).split()[0] in parameter_names(file.family.shape)
        section = "model" if is_of_model else "training"
        raise InputError(f"{file.path}: {section}.{error}") from error
    if len(data.valid) == 0 and (found := file_problems(file, validates=False)):
        lines = (f"{problem.of(file.path)}; data.n_valid is 0" for problem in found)
        raise InputError("\n".join(lines))


def recipe_trackers(file: RecipeFile, out: Path) -> list[EventHandler]:
    """Make the file's trackers, and those that every training has of other kinds."""
    load_components(TRACKER)
    paths = RunPaths(run=out, project=Path())
    chosen = [build_tracker(entry, paths) for entry in file.trackers]
    usual = default_trackers(out / "history.csv", _PRINT_EVERY)
    own = [JsonLines(folder=str(out / "record")), *usual]
    named = {type(each) for each in chosen}
    return [*(each for each in own if type(each) not in named), *chosen]
