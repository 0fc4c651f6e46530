"""Maximum entropy by absolute deviations."""

from torch import Tensor

from jemtrack.jem.objectives.max_entropy import MaxEntropyObjective
from jemtrack.parameters import parameters


@parameters
class MaxEntropyL1Objective(MaxEntropyObjective):
    """CE + `entropy_weight` * R over i of abs(m - log p~(x_i))."""

    def spread(self, deviation_B: Tensor) -> Tensor:
        """Give the absolute deviations, (B,)."""
        return deviation_B.abs()
