"""What a family of models does for those who train any, and a training of one by a recipe."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from jemtrack.parameters import ValueProblem
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.components import CALLBACK, load_components
from jemtrack.train.handlers import Callback, Tracker, build_callback
from jemtrack.train.launch import Runtime
from jemtrack.train.phase import Models, Phase
from jemtrack.train.random_streams import stream_seed
from jemtrack.train.recipe import Recipe, Step
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState

ModelMaker = Callable[[], nn.Module]


class Family(Protocol):
    """A family of models; its module imports PyTorch only where something is made.

    `model` and `settings` below are parameters: of the networks, and of all that is seen in a
    training (batches, noise, validation). In a file they are the sections `model` and `training`.
    `objective` is the one of the steps that name none.
    """

    @property
    def name(self) -> str:
        """How a file calls it."""

    @property
    def note(self) -> str:
        """Why it cannot be trained yet; empty if it can."""

    @property
    def step(self) -> type[Step]:
        """The form of its steps."""

    @property
    def shape(self) -> type:
        """The parameters class of the section `model`."""

    @property
    def settings(self) -> type:
        """The parameters class of the section `training`, the recipe left out."""

    def usual_values(self, objective: Any) -> dict[str, Any]:
        """Return the raw values that serve steps which lack them, by the training's objective."""
        ...

    def recipe_problems(self, recipe: Recipe, model: Any, objective: Any) -> Iterator[ValueProblem]:
        """Yield what is wrong between the steps of a recipe and the model's parameters."""
        ...

    def check_data(self, model: Any, settings: Any, data: Any) -> None:
        """Check the model and the settings against the data.

        Raises:
            ParameterError: if they do not fit.
        """

    def objective_problems(
        self, recipe: Recipe, objective: Any, settings: Any, data: Any, *, run_own: bool
    ) -> Iterator[str]:
        """Yield what the steps' objectives demand of settings and data that these do not meet.

        Code of the user's own is run only if `run_own` says so.
        """
        ...

    def networks(
        self, recipe: Recipe, model: Any, data: Any, start: Path | None
    ) -> dict[str, ModelMaker]:
        """Return makers of all models that the recipe's steps need, the first one's first.

        They draw from the global random stream, or load the file `start`.
        """
        ...

    def phases(
        self, recipe: Recipe, settings: Any, data: Any, device: torch.device, objective: Any
    ) -> list[Phase]:
        """Make each step's phase: its objective, batches on `device`, and validation.

        Raises:
            InputError: if an objective or a parameter does not fit.
        """
        ...

    def final_metrics(self, models: Models, settings: Any, data: Any) -> dict[str, float]:
        """Measure the trained models once more, beside the last epoch's metrics."""
        ...

    def save(self, path: Path, models: Models, training: "Training") -> None:
        """Write models of a training into one file, with its notes and what else they need."""

    def load(self, path: Path) -> Models:
        """Load the models that `save` wrote."""
        ...


def initial_models(makers: Mapping[str, ModelMaker], seed: int) -> dict[str, nn.Module]:
    """Make the models, each from a random stream of its own: one more changes no other.

    The first one's stream is the global one from `seed` on, which the training then continues.
    """
    first, *others = makers
    models: dict[str, nn.Module] = {}
    for name in others:
        torch.manual_seed(stream_seed(seed, "model", name))
        models[name] = makers[name]()
    torch.manual_seed(seed)
    return {first: makers[first](), **models}


@dataclass
class Training:
    """A training of a family's models by a recipe.

    Attributes:
        name: of the run.
        family: of the models.
        recipe: the steps, the callbacks, and what happens when a loss diverges.
        model: parameters of the networks.
        settings: parameters of what is seen.
        data: what is trained on; its `seed` draws all that is random.
        runtime: device and precision.
        parameters: all that was chosen, for the record.
        notes: written into the models' files.
        folder: for callbacks' files.
        objective: of the steps that name none.
        start: file of the models to start from; none: fresh ones.
        callbacks: beside those of the recipe.

    Raises:
        InputError: if an objective or a parameter does not fit.
    """

    name: str
    family: Family
    recipe: Recipe
    model: Any
    settings: Any
    data: Any
    runtime: Runtime
    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()
    objective: Any = None
    start: Path | None = None
    callbacks: Sequence[Callback] = ()
    phases: Sequence[Phase] = field(init=False)
    state: TrainState = field(init=False)

    def __post_init__(self) -> None:
        device = self.runtime.device
        self.phases = self.family.phases(
            self.recipe, self.settings, self.data, device, self.objective
        )
        makers = self.family.networks(self.recipe, self.model, self.data, self.start)
        models = initial_models(makers, self.data.seed)
        self.state = TrainState({name: model.to(device) for name, model in models.items()})
        # What an optimizer of the user's own does not take shows now, not in its step's turn.
        for phase in self.phases[1:]:
            phase.make_schedulers(phase.make_optimizers(self.state.models))

    def train(
        self, trackers: Sequence[Tracker], checkpoints: Checkpoints | None
    ) -> dict[str, float]:
        """Train to the end; return the last epoch's metrics.

        Raises:
            TrainingDivergedError: when a loss or gradient is not finite or too large.
            InputError: when a callback's options do not fit.
        """
        if self.recipe.callbacks:
            load_components(CALLBACK)
        chosen = [build_callback(each) for each in self.recipe.callbacks]
        run = Run(
            name=self.name,
            parameters=self.parameters,
            state=self.state,
            phases=self.phases,
            trackers=trackers,
            callbacks=[*self.callbacks, *chosen],
            checkpoints=checkpoints,
            divergence=self.recipe.divergence,
            save_weights=self._save,
            folder=self.folder,
            runtime=self.runtime,
        )
        return run.train()

    def final_metrics(self) -> dict[str, float]:
        """Measure the trained models, of averages where there are some."""
        return self.family.final_metrics(self.state.served, self.settings, self.data)

    def save(self, path: Path) -> None:
        """Write the trained models, of averages where there are some."""
        self._save(path, self.state.served)

    def _save(self, path: Path, models: Models) -> None:
        self.family.save(path, models, self)
