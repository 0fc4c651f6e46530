"""The stage TrainInVAE: train a variational autoencoder of single cells."""

from pathlib import Path
from typing import Any, ClassVar

import zntrack

from jemtrack.data.cells.cells import CellSplits
from jemtrack.invae.family import FAMILY, InVAEFamily
from jemtrack.invae.options import InVAEBatchArgs, InVAEShape, KLOptions
from jemtrack.parameters import AtLeastOne, Name, NotNegative, parameter_names, parameters
from jemtrack.stages.family_trainer import FamilyTrainer
from jemtrack.stages.training_args import TrainingArgs


@parameters
class InVAEArgs(InVAEShape, KLOptions, InVAEBatchArgs, TrainingArgs):
    """How inVAE is trained.

    The bases have the parameters of the network, of the divergence, of what is seen, and of the
    training.
    """

    family: ClassVar[InVAEFamily] = FAMILY

    experiment: Name = "invae"
    n_epochs: AtLeastOne = 200
    weight_decay: NotNegative = 1e-6

    def step_fields(self) -> dict[str, Any]:
        """Return the weight of the divergence."""
        return {name: getattr(self, name) for name in parameter_names(KLOptions)}


class TrainInVAE(FamilyTrainer):
    """Train inVAE on the training cells of a prepared file.

    Attributes:
        data: the file of prepared cells.
        params: how to train.
    """

    params: InVAEArgs = zntrack.deps(default_factory=InVAEArgs)

    @staticmethod
    def load(path: Path) -> CellSplits:
        """Read the training and validation cells; those that are held out stay in the file."""
        return CellSplits.load(Path(path))
