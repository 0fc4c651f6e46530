"""Extra copies of the weights, to inspect a model while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jemtrack.events.events import ArtifactSaved, EpochEnd, Event
from jemtrack.events.handlers import Callback
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import Option, component

if TYPE_CHECKING:
    from jemtrack.train.state import TrainState


@component("periodic_weights")
class PeriodicWeights(Callback):
    """Writes the weights to `epoch_<number>.safetensors` every `every` epochs of the run.

    The trackers are told of each file, so that they can keep it with the run.
    """

    every: int = Option(int, "epochs between two files", minimum=1)
    folder: str = RunPath(str, "the folder of the files, in the run's folder", default=".")

    def __call__(self, event: Event, state: TrainState) -> None:
        """Write after every epoch that is due."""
        if isinstance(event, EpochEnd) and event.epoch % self.every == 0:
            path = self.run_folder / self.folder / f"epoch_{event.epoch:03d}.safetensors"
            self.save_weights(path)
            self.dispatch(ArtifactSaved(path, "weights"))
