"""Extra copies of the weights, for a look at a model while it trains."""

from collections.abc import Callable
from pathlib import Path

from jemtrack.engine.events import ArtifactSaved, EpochEnd, Event, Status
from jemtrack.engine.listeners import Listener


class PeriodicWeights(Listener):
    """Has `save` write `folder/epoch_<number>.safetensors` every `every` epochs of the run.

    Each is announced, so that the trackers can keep it with the run.
    """

    def __init__(self, save: Callable[[Path], None], folder: Path, every: int) -> None:
        self.save = save
        self.folder = folder
        self.every = every

    def __call__(self, event: Event) -> None:
        """Save after an epoch that is due."""
        if not isinstance(event, EpochEnd) or event.status != Status.SUCCESS:
            return
        if event.epoch % self.every == 0:
            path = self.folder / f"epoch_{event.epoch:03d}.safetensors"
            self.save(path)
            self.announce(ArtifactSaved(path, "weights"))
