"""A family of models, for which the engine makes and trains what a recipe says; free of PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from jemtrack.events.handlers import Callback
    from jemtrack.parameters import ValueProblem
    from jemtrack.train.phase import Batches, Models, Objective, Validation
    from jemtrack.train.recipe import Recipe, Step
    from jemtrack.train.run import Training

ModelMaker = Callable[[], "nn.Module"]


class Family(ABC):
    """A family of models; its module imports PyTorch only where something is made.

    `model` and `settings` below are parameters: of the networks, and of all that is seen in a
    training (batches, noise, validation). In a file they are the sections `model` and `training`.
    `objective` is the one of the steps that name none. What a family need not say has a default.
    """

    name: ClassVar[str]  # how a file calls it
    note: ClassVar[str] = ""  # why recipe files of it cannot be trained; empty if they can
    step: ClassVar[type[Step]]  # the form of its steps
    shape: ClassVar[type]  # the parameters class of the section `model`
    settings: ClassVar[type]  # that of the section `training`, the recipe left out
    objectives: ClassVar[Mapping[str, type]] = {}  # those that a step can name, by their `type`

    def notes(self, recipe: Recipe, model: Any) -> Iterator[str]:
        """Yield sentences for the reader of a recipe that is sound."""
        yield from ()

    def usual_values(self, objective: Any) -> dict[str, Any]:
        """Return the raw values that serve steps which lack them, by the training's objective."""
        return {}

    def recipe_problems(self, recipe: Recipe, model: Any, objective: Any) -> Iterator[ValueProblem]:
        """Yield what is wrong between the steps of a recipe and the model's parameters."""
        yield from ()

    @abstractmethod
    def check_data(self, model: Any, settings: Any, data: Any) -> None:
        """Check the model and the settings against the data.

        Raises:
            InputError: if they do not fit.
        """

    def objective_problems(
        self, recipe: Recipe, objective: Any, settings: Any, data: Any, *, run_own: bool
    ) -> Iterator[str]:
        """Yield what the steps' objectives demand of settings and data that these do not meet.

        Code of the user's own is run only if `run_own` says so.
        """
        yield from ()

    @abstractmethod
    def networks(
        self, recipe: Recipe, model: Any, data: Any, start: Path | None
    ) -> dict[str, ModelMaker]:
        """Return makers of all models that the recipe's steps need, the first one's first.

        They draw from the global random stream, or load the file `start`.
        """

    @abstractmethod
    def parts(
        self, recipe: Recipe, settings: Any, data: Any, device: torch.device, objective: Any
    ) -> Iterable[tuple[Objective, Batches, Validation | None]]:
        """Make what each step's phase has: its objective, batches on `device`, and validation.

        Raises:
            InputError: if an objective or a parameter does not fit.
        """

    def callbacks(self, training: Training) -> Sequence[Callback]:
        """Make the callbacks that a training of the family has beside those of its recipe."""
        return ()

    def final_metrics(self, models: Models, settings: Any, data: Any) -> dict[str, float]:
        """Measure the trained models once more, beside the last epoch's metrics."""
        return {}

    @abstractmethod
    def save(self, path: Path, models: Models, training: Training) -> None:
        """Write models of a training into one file, with its notes and what else they need."""

    @abstractmethod
    def load(self, path: Path) -> Models:
        """Load the models that `save` wrote."""
