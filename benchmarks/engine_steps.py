"""jemtrack's side: the training step of a stage, one step per call."""

from collections.abc import Iterator
from itertools import count
from typing import cast

import torch

from jemtrack.data.images import DataSplits
from jemtrack.jem.family import NETWORK
from jemtrack.jem.training.batches import Batch
from jemtrack.jem.training.phases import initial_network, network_shape, training_phases
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.trainer_recipe import trainer_family, trainer_recipe
from jemtrack.train.hardware import Hardware, Precision
from jemtrack.train.launch import Runtime, launch
from jemtrack.train.loop import set_modes, update
from jemtrack.train.phase import Batches, Objective
from jemtrack.train.recipe import Recipe
from jemtrack.train.state import TrainState


def runtime_for(device: torch.device, precision: Precision) -> Runtime:
    """Return the runtime of a stage with this device and precision."""
    return launch(Hardware(device=device.type, precision=precision), lambda runtime: runtime)


def ordinary_recipe(params: TrainArgs, objective: Objective) -> Recipe:
    """Return the recipe of a trainer without a recipe of its own."""
    return trainer_recipe({}, params, trainer_family(objective), "benchmark")


class EngineStep:
    """Draw and augment a batch and train on it with the engine."""

    def __init__(
        self, objective: Objective, params: TrainArgs, data: DataSplits, runtime: Runtime
    ) -> None:
        torch.manual_seed(data.seed)
        self.network = initial_network(network_shape(params, data), None, runtime.device)
        recipe = ordinary_recipe(params, objective)
        [self.phase] = training_phases(recipe, [objective], params, data, runtime.device)
        self.state = TrainState({NETWORK: self.network})
        self.state.enter(self.phase)
        set_modes(self.state, self.phase)
        self._batches = endless(self.phase.batches)
        self._autocast = runtime.autocast

    def __call__(self) -> dict[str, float]:
        """Take a step; return its losses."""
        return update(self.state, self.phase, next(self._batches), self._autocast)


def endless(batches: Batches) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other, without end."""
    for epoch in count():
        yield from cast(Iterator[Batch], batches.epoch(epoch))
