"""The learning rates, for the trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jemtrack.train.components import component
from jemtrack.train.events import Diverged, EpochStart, Event, Measured
from jemtrack.train.handlers import Callback
from jemtrack.train.metrics import Metric

if TYPE_CHECKING:
    from jemtrack.train.state import TrainState


@component("learning_rate")
class LearningRate(Callback):
    """Announces each optimizer's rate as `learning_rate.<optimizer>`: at an epoch's start.

    It does so in the middle of an epoch where training goes back to after a divergence.
    """

    def __call__(self, event: Event, state: TrainState) -> None:
        """Dispatch the rates where they may be others than before."""
        # An epoch that goes on after a kill has said its rates before.
        starts = isinstance(event, EpochStart) and event.position.batch == 0
        changes = isinstance(event, Diverged) and event.back_to.batch > 0
        if starts or changes:
            # Imported here, for torch comes with it.
            from jemtrack.train.optimizers import learning_rates

            rates = learning_rates(state.optimizers).items()
            metrics = {f"{Metric.LEARNING_RATE}.{name}": rate for name, rate in rates}
            self.dispatch(Measured(metrics, state.step))
