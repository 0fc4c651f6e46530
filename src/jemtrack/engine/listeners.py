"""Those who listen to a training."""

from collections.abc import Callable
from typing import Any

from jemtrack.engine.components import Component
from jemtrack.engine.events import Event

Announce = Callable[[Event], None]


def nobody_listens(event: Event) -> None:
    """Serve as `announce` outside of a run."""


class Listener(Component):
    """Is told every event of a run in turn, and closed at its end.

    One that raises is warned about once; training does not depend on it. With `announce`, which
    the run sets, it tells the run's listeners and callbacks of what it has seen itself.
    """

    announce: Announce = staticmethod(nobody_listens)

    def __call__(self, event: Event) -> None:
        """Take note of `event`."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of files and screens; called once, on every way out."""

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint must hold for the listener to go on from there: JSON, tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave; called before the first event."""
