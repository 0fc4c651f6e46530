"""Those who listen to a training."""

from jemtrack.engine.components import Component
from jemtrack.engine.events import Event


class Listener(Component):
    """Is told every event of a run in turn, and closed at its end."""

    def __call__(self, event: Event) -> None:
        """Take note of `event`."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of files and screens; called once, on every way out."""
