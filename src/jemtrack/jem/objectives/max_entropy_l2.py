"""Maximum entropy by squared deviations of log p~ from its mean over the batch.

Letters: B batch.
"""

from torch import Tensor

from jemtrack.jem.objectives.max_entropy import MaxEntropyObjective
from jemtrack.parameters import parameters


@parameters
class MaxEntropyL2Objective(MaxEntropyObjective):
    """CE + `entropy_weight` * R over i of (m - log p~(x_i))^2, with m the mean over the batch.

    For R = mean, the penalty is the variance of log p~ over the batch: to third order, twice what
    the entropy of p~ over the batch lacks to its maximum, log B. The gradient of the summed
    penalty with respect to log p~(x_i) is 2 * (log p~(x_i) - m), as the deviations sum to 0; for
    R = mean, it is divided by B. The pull towards the mean grows with the distance: images of very
    high or very low density dominate it, and it vanishes smoothly at the mean.

    Source: the stage MaxEntropyL2 of the published maximum-entropy JEM, where R is the sum.
    """

    def spread(self, deviation_B: Tensor) -> Tensor:
        """Return the squared deviations, (B,)."""
        return deviation_B.square()
