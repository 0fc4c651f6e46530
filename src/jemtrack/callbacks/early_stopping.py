"""The end of a phase that no longer improves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jemtrack.callbacks.watching import Watching
from jemtrack.events.events import EpochEnd, Event, PhaseEnd
from jemtrack.shared.components import Option, component

if TYPE_CHECKING:
    from jemtrack.train.state import TrainState


@component("early_stopping")
class EarlyStopping(Watching):
    """Ends a phase once `metric` has not improved for `patience` epochs; the next one follows.

    Each phase counts from zero. Epochs without the metric do not count; a value that is not
    finite is no improvement.
    """

    patience: int = Option(
        int, "epochs without an improvement after which the phase ends", default=10, minimum=1
    )
    least_change: float = Option(
        float, "a change of at most this much is no improvement", default=0.0, minimum=0
    )

    def _post_init_(self) -> None:
        super()._post_init_()
        self.waited = 0

    def __call__(self, event: Event, state: TrainState) -> None:
        """Judge an epoch; reset the count when a phase ends."""
        super().__call__(event, state)
        if isinstance(event, PhaseEnd):
            self.best, self.waited = None, 0

    def look(self, value: float, event: EpochEnd, state: TrainState) -> None:
        """Count an epoch without an improvement, and end the phase if there were enough."""
        if self.is_better(value, self.least_change):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            best = "a number" if self.best is None else f"better than {self.best:g}"
            state.stop_phase = f"{self.metric} was never {best} (patience: {self.patience})"

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the number of epochs since."""
        return {**super().state_dict(), "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        super().load_state_dict(state)
        self.waited = state["waited"]
