"""The trainer that all training methods of joint energy-based models share."""

from pathlib import Path
from typing import Any, ClassVar

import zntrack

from jemtrack.data.images import DataSplits
from jemtrack.shared.metrics import Metric
from jemtrack.stages.family_trainer import FamilyTrainer
from jemtrack.stages.stage import plot
from jemtrack.stages.train_args import TrainArgs


class Trainer(FamilyTrainer):
    """Trains a classifier by an objective; a subclass says which is the usual one.

    Attributes:
        data: the file of prepared images.
        params: how to train.
        objective: what to minimise, a dataclass that is a `jemtrack.train.phase.Objective`.
        metrics: accuracy and NLL of the trained model on the validation images; without these,
            the training loss.
        history: the losses and the validation of each epoch.
    """

    params: TrainArgs = zntrack.deps(default_factory=TrainArgs)
    objective: Any = zntrack.deps()
    history: Path = plot(
        zntrack.nwd / "history.csv", x="epoch", y=["train_loss", "valid_nll", "valid_accuracy"]
    )

    compared: ClassVar[tuple[str, ...]] = (Metric.VALID_ACCURACY, Metric.VALID_NLL)

    @staticmethod
    def load(path: Path) -> DataSplits:
        """Read the prepared images."""
        return DataSplits.load(path)
