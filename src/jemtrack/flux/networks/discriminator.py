"""The discriminator, which judges patches.

Letters: B batch, C channels, H height, W width.
"""

from typing import cast

from torch import Tensor, nn

from jemtrack.flux.networks.layers import channels_last
from jemtrack.flux.networks.shape import FluxSizes, halvings

_FIRST, _MOST = 32, 128  # channels
_SLOPE = 0.2


class Discriminator(nn.Module):
    """Computes a logit for each patch of an image: above 0 it takes the patch for real.

    It has no spectral norm, whose state is hidden: the R1 penalty keeps it smooth.

    Source: Isola et al. 2017 (https://arxiv.org/abs/1611.07004), section 2.2.2.
    """

    def __init__(self, sizes: FluxSizes) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in: int = sizes.channels
        n_out = _FIRST
        for _ in range(max(halvings(sizes.height, sizes.width), 2)):
            layers += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
            n_in, n_out = n_out, min(2 * n_out, _MOST)
        layers += [nn.Conv2d(n_in, _MOST, 3, padding=1), nn.LeakyReLU(_SLOPE)]
        layers += [nn.Conv2d(_MOST, 1, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Compute the logits, (B, 1, H / 4, W / 4) or smaller, in float32 even under autocast."""
        return cast(Tensor, self.layers(channels_last(images_BCHW))).float()
