"""The configuration of the factories: a recipe file, or the same as a mapping, and its data."""

import copy
import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from jemtrack.data.images import DataSplits
from jemtrack.data.splits import ChosenFold, prepare
from jemtrack.documents import Document
from jemtrack.errors import InputError, ParameterError
from jemtrack.events.handlers import EventHandler
from jemtrack.jem.training.options import NETWORK
from jemtrack.parameters import parameter_names
from jemtrack.recipe.check import file_problems, sound_recipe
from jemtrack.recipe.read import RecipeFile
from jemtrack.record.jsonl import JsonLines
from jemtrack.record.paths import RunPaths, build_tracker
from jemtrack.shared.components import TRACKER, load_components
from jemtrack.trackers.console import default_trackers

_FAMILY = "jem"
_OF_A_MAPPING = Path("configuration")  # what messages call it
_PRINT_EVERY = 100
_USUAL_STEP = {
    "name": "train",
    "n_epochs": 10,
    "objective": {"type": "max_entropy_l2"},
    "optimization": {"optimizers": {NETWORK: {"type": "Adam", "lr": 1e-3}}},
}
_USUAL = {"training": {"pipeline": {"steps": [_USUAL_STEP]}}}


class Configuration:
    """A recipe for joint energy-based models, read once, and the images that it is for.

    Args:
        source: path of a recipe file; or a mapping of the same sections, in which `training` may
            be left out: 10 epochs of MaxEntropyL2 by Adam.
        fold: of a cross-validation, whose test images the data then have.

    Raises:
        InputError: a line for each problem of the recipe.
    """

    def __init__(
        self, source: str | Path | Mapping[str, Any] | RecipeFile, fold: ChosenFold | None = None
    ) -> None:
        if isinstance(source, Mapping):
            document = Document({**_USUAL, **source}, lines={(): 0})
            source = RecipeFile(_OF_A_MAPPING, document=document)
        elif not isinstance(source, RecipeFile):
            source = RecipeFile(Path(source))
        self.file, self._fold = sound_recipe(source), fold
        if self.file.family.name != _FAMILY:
            raise InputError(
                f"{self.file.path}: model.family must be {_FAMILY} for the factories, got "
                f"{self.file.family.name}: `jemtrack train` trains it"
            )

    @cached_property
    def data(self) -> DataSplits:
        """The images, split as the section `data` says.

        Raises:
            InputError: if they are missing or do not fit.
        """
        data = prepared(self.file, self._fold)
        check_data(self.file, data)
        return data

    @property
    def notes(self) -> dict[str, str]:
        """What a model's file says of it."""
        return {"trainer": self.file.path.stem, "dataset": self.data.dataset}

    def of_fold(self, number: int, n_folds: int) -> "Configuration":
        """Return the same for fold `number` of `n_folds`."""
        return Configuration(self.file, ChosenFold(n_folds, number))

    def with_optimization(self, **chosen: Mapping[str, Any]) -> "Configuration":
        """Return the same with other `optimizers` or `schedulers` of the network in each step.

        Raises:
            InputError: a line for each problem.
        """
        content = copy.deepcopy(self.file.document.content)
        for step in content["training"]["pipeline"]["steps"]:
            networks = {kind: {NETWORK: options} for kind, options in chosen.items()}
            step["optimization"] = {**(step.get("optimization") or {}), **networks}
        document = Document(content, lines={(): 0})
        return Configuration(RecipeFile(self.file.path, document=document), self._fold)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Configuration":
        """Return itself: a copy of a model needs no copy of the images."""
        return self


Config = str | Path | Mapping[str, Any] | Configuration


def configured(config: Config) -> Configuration:
    """Read a configuration, unless it was read before."""
    return config if isinstance(config, Configuration) else Configuration(config)


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
