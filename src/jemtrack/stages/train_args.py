"""The parameters that the trainers of joint energy-based models share."""

from typing import Any, ClassVar

from jemtrack.jem.networks.shape import NetworkShape
from jemtrack.jem.training.family import FAMILY, JemFamily
from jemtrack.jem.training.forms import BatchArgs
from jemtrack.jem.training.options import NETWORK
from jemtrack.parameters import parameters
from jemtrack.stages.training_args import TrainingArgs


@parameters
class TrainArgs(NetworkShape, BatchArgs, TrainingArgs):
    """How a trainer trains; the objective's own parameters are beside it.

    The bases have the parameters of the network, of what is seen, and of the training.

    Attributes:
        clf_only: train the class head alone; the trunk stays as it is. As `optimizer` and
            `n_epochs`, it is for the ordinary training.
    """

    family: ClassVar[JemFamily] = FAMILY

    clf_only: bool = False

    def step_fields(self) -> dict[str, Any]:
        """Freeze all but the class head, if it alone is trained."""
        return {"freeze": (f"{NETWORK}.trunk", f"{NETWORK}.energy_head") if self.clf_only else ()}
