"""Extra copies of the weights, for a look at a model while it trains."""

from collections.abc import Callable
from pathlib import Path

from jemtrack.engine.events import EpochEnd, Event
from jemtrack.engine.listeners import Listener


class PeriodicWeights(Listener):
    """Has `save` write `folder/epoch_<number>.safetensors` every `every` epochs."""

    def __init__(self, save: Callable[[Path], None], folder: Path, every: int) -> None:
        self.save = save
        self.folder = folder
        self.every = every

    def __call__(self, event: Event) -> None:
        """Save after an epoch that is due."""
        if isinstance(event, EpochEnd) and event.position.epoch % self.every == 0:
            self.save(self.folder / f"epoch_{event.position.epoch:03d}.safetensors")
