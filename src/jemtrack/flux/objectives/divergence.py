"""The divergence of the posterior from the prior.

Unit: nats per latent value, a mean over batch, channels and positions, which does not grow with
the image; times the number of latent values it is nats an image. Letters: B batch, C channels, H
height, W width.
"""

import math

from torch import Tensor

from jemtrack.flux.networks.autoencoder import Posterior
from jemtrack.parameters import Count, NotNegative, parameters
from jemtrack.train.distributed import all_gather


@parameters
class Divergence:
    """KL(q(z|x) || N(0, 1)), with a weight that warms up and free bits for each channel.

    Source: Kingma & Welling 2014 (https://arxiv.org/abs/1312.6114), appendix B; free bits by
    Kingma et al. 2016 (https://arxiv.org/abs/1606.04934), appendix C.8, per channel.

    Attributes:
        beta: the weight after the warm-up.
        warmup_steps: over which the weight rises along half a cosine.
        free_bits: nats per value of a channel that cost nothing.
    """

    beta: NotNegative = 1e-4
    warmup_steps: Count = 5000
    free_bits: NotNegative = 0.0

    def weight(self, step: int) -> float:
        """Return the weight for the batch after `step` others."""
        if step >= self.warmup_steps:
            return self.beta
        return self.beta * (1 - math.cos(math.pi * step / self.warmup_steps)) / 2

    def by_channel(self, posterior: Posterior) -> Tensor:
        """Compute the mean divergence of each channel over the whole batch, (C,)."""
        mean, log_variance = posterior
        kl_BCHW = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        # A channel is judged by the mean of all images: clamping single values, or those of one
        # process, would take the gradient of some and let the others pay.
        return all_gather(kl_BCHW.mean(dim=(2, 3))).mean(dim=0)

    def __call__(self, kl_C: Tensor) -> Tensor:
        """Compute what is minimised: a channel below its free bits counts as having them."""
        return kl_C.clamp_min(self.free_bits).mean() if self.free_bits else kl_C.mean()
