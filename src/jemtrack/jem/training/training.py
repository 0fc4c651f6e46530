"""A training of a joint energy model by a recipe, as the stages and `jemtrack train` have it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from jemtrack.jem.family import NETWORK
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.model_file import save_model
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.components import CALLBACK, load_components
from jemtrack.train.handlers import Callback, Tracker, build_callback
from jemtrack.train.launch import Runtime
from jemtrack.train.phase import Models, Phase
from jemtrack.train.recipe import Recipe
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState


@dataclass
class Training:
    """A network, and the run that trains it.

    Attributes:
        name: of the run.
        network: where it starts.
        shape: the network's, for its files.
        recipe: gives the callbacks, and what happens when a loss diverges.
        phases: those of the recipe's steps.
        notes: written into the network's files.
        parameters: all that was chosen, for the record.
        folder: where callbacks put their files.
        place: where it trains; the network and the phases' batches are there.
        callbacks: beside those of the recipe.
    """

    name: str
    network: JointEnergyModel
    shape: WideResNetShape
    recipe: Recipe
    phases: Sequence[Phase]
    notes: Mapping[str, str]
    parameters: Mapping[str, Any]
    folder: Path
    place: Runtime
    callbacks: Sequence[Callback] = ()
    state: TrainState = field(init=False)

    def __post_init__(self) -> None:
        self.state = TrainState({NETWORK: self.network})

    def train(
        self, trackers: Sequence[Tracker], checkpoints: Checkpoints | None
    ) -> dict[str, float]:
        """Train to the end; give the last epoch's metrics.

        Raises:
            TrainingDivergedError: when a loss or gradient is not finite or too large.
            InputError: when a callback's options do not fit.
        """
        run = Run(
            name=self.name,
            parameters=self.parameters,
            state=self.state,
            phases=self.phases,
            trackers=trackers,
            callbacks=[*self.callbacks, *self._recipe_callbacks()],
            checkpoints=checkpoints,
            divergence=self.recipe.divergence,
            save_weights=self._save,
            folder=self.folder,
            place=self.place,
        )
        return run.train()

    def _recipe_callbacks(self) -> list[Callback]:
        if self.recipe.callbacks:
            load_components(CALLBACK)
        return [build_callback(each) for each in self.recipe.callbacks]

    @property
    def served(self) -> JointEnergyModel:
        """The network to use: the average over the training where there is one."""
        return cast(JointEnergyModel, self.state.served[NETWORK])

    def save(self, path: Path) -> None:
        """Write the network to use."""
        self._save(path, self.state.served)

    def _save(self, path: Path, models: Models) -> None:
        network = cast(JointEnergyModel, models[NETWORK])
        save_model(path, network, self.shape, self.notes)
