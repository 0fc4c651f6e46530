"""Those who have a say in a training."""

from typing import Any

from jemtrack.engine.components import Component
from jemtrack.engine.events import Event
from jemtrack.engine.state import TrainState


class Callback(Component):
    """Is told every event after the listeners, and may change the state.

    To end the training after the epoch, it writes the reason into `state.stop`. What it raises
    ends the run as failed.
    """

    def __call__(self, event: Event, state: TrainState) -> None:
        """Take note of `event`, or act on it."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint must hold for the callback to go on from there: JSON, tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave; called before the first event."""
