"""The configuration of the factories: a recipe file, or the same as a mapping, and its data."""

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from jemtrack.data.images import DataSplits
from jemtrack.data.splits import ChosenFold
from jemtrack.documents import Document
from jemtrack.errors import InputError
from jemtrack.jem.training.options import NETWORK
from jemtrack.recipe.check import sound_recipe
from jemtrack.recipe.prepare import check_data, prepared
from jemtrack.recipe.read import RecipeFile

_FAMILY = "jem"
_OF_A_MAPPING = Path("configuration")  # what messages call it
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
