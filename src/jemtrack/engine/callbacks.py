"""Those who have a say in a training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jemtrack.engine.components import Component
from jemtrack.engine.events import Event
from jemtrack.engine.listeners import Announce, nobody_listens
from jemtrack.engine.state import TrainState
from jemtrack.errors import InputError

SaveWeights = Callable[[Path], None]


def nowhere_to_save(path: Path) -> None:
    """Serve as `save_weights` where the run was given none."""
    raise InputError(f"{path} cannot be written: the run was given no function to save weights")


class Callback(Component):
    """Is told every event after the listeners, and may change the state.

    To end the training after the epoch, it writes the reason into `state.stop`. What it raises
    ends the run as failed. The run sets `announce`, which tells its listeners and callbacks of
    what the callback has done, and `save_weights`, which writes the models to a file.
    """

    save_weights: SaveWeights = staticmethod(nowhere_to_save)
    announce: Announce = staticmethod(nobody_listens)

    def __call__(self, event: Event, state: TrainState) -> None:
        """Take note of `event`, or act on it."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint must hold for the callback to go on from there: JSON, tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave; called before the first event."""
