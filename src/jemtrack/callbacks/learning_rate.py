"""Learning rates for the trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jemtrack.events.events import Diverged, EpochStart, Event, Measured
from jemtrack.events.handlers import Callback
from jemtrack.shared.components import component
from jemtrack.shared.metrics import Metric

if TYPE_CHECKING:
    from jemtrack.train.state import TrainState


@component("learning_rate")
class LearningRate(Callback):
    """Reports each optimizer's learning rate as `learning_rate.<optimizer>` when an epoch starts.

    After a divergence it reports them in the middle of an epoch, if training returns there.
    """

    def __call__(self, event: Event, state: TrainState) -> None:
        """Dispatch the rates when they may have changed."""
        # An epoch that resumes after a kill has reported its rates before.
        starts = isinstance(event, EpochStart) and event.position.batch == 0
        changes = isinstance(event, Diverged) and event.back_to.batch > 0
        if starts or changes:
            # Imported here, because it imports torch.
            from jemtrack.train.optimizers import learning_rates

            rates = learning_rates(state.optimizers).items()
            metrics = {f"{Metric.LEARNING_RATE}.{name}": rate for name, rate in rates}
            self.dispatch(Measured(metrics, state.step))
