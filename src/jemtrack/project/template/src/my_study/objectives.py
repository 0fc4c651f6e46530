"""What the trainers of this project minimise."""

from jemtrack.jem.objectives.max_entropy import MaxEntropyObjective
from jemtrack.parameters import parameters
from torch import Tensor


@parameters
class PseudoHuber(MaxEntropyObjective):
    """CE + `entropy_weight` * R over i of sqrt(1 + (m - log p~(x_i))^2) - 1."""

    def spread(self, deviation_B: Tensor) -> Tensor:
        """Compute the penalty of each deviation from the mean m, (B,)."""
        return (1 + deviation_B.square()).sqrt() - 1
