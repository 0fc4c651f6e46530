"""The common base of early stopping and best weights: they watch a metric of the epochs."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from jemtrack.events.events import EpochEnd, Event, PhaseEnd, PhaseStart
from jemtrack.events.handlers import Callback
from jemtrack.shared.components import Option

if TYPE_CHECKING:
    from jemtrack.train.state import TrainState

log = logging.getLogger("jemtrack")

_MIN, _MAX = "min", "max"


class Watching(Callback):
    """Judges `metric` after each epoch that has it; `best` is its best value so far.

    A value that is not finite is never the best.
    """

    metric: str = Option(str, "the metric of an epoch to watch")
    mode: str = Option(
        str, "whether a smaller or a larger value is better", default=_MIN, choices=(_MIN, _MAX)
    )
    phase: str | None = Option(str, "the only phase to watch; none: all", default=None)

    def _post_init_(self) -> None:
        self.best: float | None = None
        self.n_phases = 1
        self._watches = self.phase is None

    def __call__(self, event: Event, state: TrainState) -> None:
        """Note the phase; judge the epochs of a phase that is watched."""
        if isinstance(event, PhaseStart):
            self.n_phases = event.n_phases
            self._watches = self.phase in (None, event.name)
        elif isinstance(event, EpochEnd) and self._watches and self.metric in event.metrics:
            self.look(event.metrics[self.metric], event, state)
        elif isinstance(event, PhaseEnd) and self._watches and self.best is None:
            where = f"{type(self).__name__}: no epoch of {event.name}"
            log.warning(f"{where} had a {self.metric} that is a number")

    def look(self, value: float, event: EpochEnd, state: TrainState) -> None:
        """Act on the `value` of the metric in the epoch that ended."""
        raise NotImplementedError

    def is_better(self, value: float, least_change: float = 0.0) -> bool:
        """Return whether `value` is better than the best by more than `least_change`."""
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value if self.mode == _MIN else value - self.best
        return gain > least_change

    def state_dict(self) -> dict[str, Any]:
        """Return the best value."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best value."""
        self.best = state["best"]
