"""The one training loop."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from jemtrack.engine.events import (
    BatchEnd,
    EpochEnd,
    EpochStart,
    Event,
    PhaseEnd,
    PhaseStart,
)
from jemtrack.engine.phase import Phase
from jemtrack.engine.state import TrainState
from jemtrack.errors import TrainingDivergedError


def fit(state: TrainState, phase: Phase) -> Iterator[Event]:
    """Train one phase from where `state` stands; yield what happens.

    Raises:
        TrainingDivergedError: before a loss that is not finite reaches the weights.
    """
    freeze(state, phase)
    yield PhaseStart(state.position, phase.name, phase.n_epochs, len(phase.batches))
    while state.position.epoch < phase.n_epochs:
        yield from fit_epoch(state, phase)
    yield PhaseEnd(state.position, phase.name)


def fit_epoch(state: TrainState, phase: Phase) -> Iterator[Event]:
    """Train what is left of the epoch that `state` stands in."""
    epoch = state.position.epoch
    set_modes(state, phase)
    totals = Totals()
    yield EpochStart(state.position)
    for batch in phase.batches.epoch(epoch, start=state.position.batch):
        losses = update(state, phase, batch)
        totals.add(losses)
        state.position = replace(state.position, batch=state.position.batch + 1)
        yield BatchEnd(state.position, losses)
    metrics = totals.means()
    if phase.validation and phase.validation.due(epoch, phase.n_epochs):
        metrics |= phase.validation.measure(state.models)
    state.position = replace(state.position, epoch=epoch + 1, batch=0)
    yield EpochEnd(state.position, metrics)


def update(state: TrainState, phase: Phase, batch: Any) -> dict[str, float]:
    """Take one optimization step on `batch`; give its losses from before the step."""
    losses = phase.objective(state.models, batch)
    values = dict(zip(losses, torch.stack([*losses.values()]).tolist(), strict=True))
    if not torch.isfinite(losses["loss"]):
        raise TrainingDivergedError(_divergence(state, values))
    for optimizer in state.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    for optimizer in state.optimizers.values():
        optimizer.step()
    return values


def freeze(state: TrainState, phase: Phase) -> None:
    """Say for every weight whether the phase trains it: nothing is left from another phase."""
    for model in state.models.values():
        model.requires_grad_(True)
    for module in phase.frozen_modules(state.models):
        module.requires_grad_(False)


def set_modes(state: TrainState, phase: Phase) -> None:
    """Put the models into training mode, and what is frozen into evaluation mode."""
    for model in state.models.values():
        model.train()
    for module in phase.frozen_modules(state.models):
        module.eval()


class Totals:
    """The mean of each loss over the batches of an epoch."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, losses: Mapping[str, float]) -> None:
        """Count one batch in."""
        self._count += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Give `train_<loss>` for each loss that was added."""
        return {f"train_{name}": total / self._count for name, total in self._sums.items()}


def _divergence(state: TrainState, values: Mapping[str, float]) -> str:
    place = f"epoch {state.position.epoch + 1}, batch {state.position.batch + 1}"
    losses = ", ".join(f"{name} {value:g}" for name, value in values.items())
    return (
        f"the loss is not finite at {place} ({losses}); the weights were left as they were: "
        "a lower learning rate or weight of the penalty may help"
    )
