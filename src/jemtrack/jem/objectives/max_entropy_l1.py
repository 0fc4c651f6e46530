"""Maximum entropy by absolute deviations of log p~ from its mean over the batch.

Letters: B batch.
"""

from torch import Tensor

from jemtrack.jem.objectives.max_entropy import MaxEntropyObjective
from jemtrack.parameters import parameters


@parameters
class MaxEntropyL1Objective(MaxEntropyObjective):
    """CE + `entropy_weight` * R over i of abs(m - log p~(x_i)), with m the mean over the batch.

    With s_i the sign of log p~(x_i) - m, the gradient of the summed penalty with respect to
    log p~(x_i) is s_i minus the mean of s over the batch; for R = mean, it is divided by B. Every
    image is pulled towards the mean with a force that does not depend on its distance. So a few
    images far from the mean cost little and may stay there, while the bulk is drawn together. The
    force does not vanish near the mean, so log p~ may oscillate around it.

    Source: the stage MaxEntropyL1 of the published maximum-entropy JEM, where R is the sum.
    """

    def spread(self, deviation_B: Tensor) -> Tensor:
        """Return the absolute deviations, (B,)."""
        return deviation_B.abs()
