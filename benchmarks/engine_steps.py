"""jemtrack's side: the training step of a stage, one step per call."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import cast

import torch

from jemtrack.data.images import DataSplits
from jemtrack.jem.training.batches import Batch
from jemtrack.jem.training.family import FAMILY
from jemtrack.jem.training.options import NETWORK
from jemtrack.shared.hardware import Hardware, Precision, reproducible
from jemtrack.stages.train_args import TrainArgs
from jemtrack.train.launch import Runtime, launch
from jemtrack.train.loop import set_modes, update
from jemtrack.train.phase import Batches, Objective
from jemtrack.train.recipe import Recipe
from jemtrack.train.run import Training


def runtime_for(device: torch.device, precision: Precision) -> Runtime:
    """Return the runtime of a stage with this device and precision."""
    return launch(Hardware(device=device.type, precision=precision), lambda runtime: runtime)


def ordinary_training(
    params: TrainArgs,
    objective: Objective,
    data: DataSplits,
    runtime: Runtime,
    folder: Path = Path(),
) -> Training:
    """Make the training of a trainer that has no recipe of its own."""
    recipe = Recipe(steps=(params.ordinary_step(),))
    return Training(
        "benchmark",
        FAMILY,
        recipe,
        model=params,
        settings=params,
        data=data,
        runtime=runtime,
        objective=objective,
        folder=folder,
    )


class EngineStep:
    """Draw and augment a batch and train on it with the engine."""

    def __init__(
        self, objective: Objective, params: TrainArgs, data: DataSplits, runtime: Runtime
    ) -> None:
        training = ordinary_training(params, objective, data, runtime)
        [self.phase] = training.phases
        self.state = training.state
        self.network = self.state.models[NETWORK]
        self.state.enter(self.phase)
        set_modes(self.state, self.phase)
        self._batches = endless(self.phase.batches)
        self._runtime = runtime

    def __call__(self) -> dict[str, float]:
        """Take a step; return its losses."""
        with reproducible(self._runtime.device):  # as in a training that was launched
            return update(self.state, self.phase, next(self._batches), self._runtime.autocast)


def endless(batches: Batches) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other, without end."""
    for epoch in count():
        yield from cast(Iterator[Batch], batches.epoch(epoch))
