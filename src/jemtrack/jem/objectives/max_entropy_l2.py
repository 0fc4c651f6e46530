"""Maximum entropy by squared deviations."""

from torch import Tensor

from jemtrack.jem.objectives.max_entropy import MaxEntropyObjective
from jemtrack.parameters import parameters


@parameters
class MaxEntropyL2Objective(MaxEntropyObjective):
    """CE + `entropy_weight` * R over i of (m - log p~(x_i))^2."""

    def spread(self, deviation_B: Tensor) -> Tensor:
        """Give the squared deviations, (B,)."""
        return deviation_B.square()
