"""Callbacks by the names and with the defaults that users of other libraries expect."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jemtrack.callbacks import early_stopping
from jemtrack.callbacks.best_weights import BestWeights
from jemtrack.events.events import ArtifactSaved, EpochEnd
from jemtrack.record.paths import RunPath
from jemtrack.shared.components import Option

if TYPE_CHECKING:
    from jemtrack.train.state import TrainState

_METRIC = "valid_nll"


class EarlyStopping(early_stopping.EarlyStopping):
    """Ends the training when the NLL of the validation images no longer improves."""

    metric: str = Option(str, "the metric of an epoch to watch", default=_METRIC)


class ModelCheckpoint(BestWeights):
    """Writes the weights of the best epoch, or of each epoch that is validated.

    What resumes an interrupted training is kept without it.
    """

    metric: str = Option(str, "the metric of an epoch to watch", default=_METRIC)
    save_dir: str = RunPath(str, "the folder, in the run's folder", default="checkpoints")
    save_best: bool = Option(bool, "whether only the best epoch's are written", default=True)

    def look(self, value: float, event: EpochEnd, state: "TrainState") -> None:
        """Write the weights if they are the best, or of all epochs."""
        if self.save_best:
            super().look(value, event, state)
            return
        path = self._path.with_name(f"epoch_{event.epoch:03d}.safetensors")
        self.save_weights(path)
        self.dispatch(ArtifactSaved(path, "weights"))

    @property
    def _path(self) -> Path:
        return self.run_folder / self.save_dir / self.file


class LearningRateScheduler:
    """A schedule of the learning rate, by the type and options that a recipe gives it.

    Without an argument it falls to 0 along a cosine, over the epochs of the training.
    """

    def __init__(self, type: str = "CosineAnnealingLR", **options: Any) -> None:
        self.chosen = {"type": type, **options}
