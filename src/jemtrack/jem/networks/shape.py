"""The shape of a network; this module does not import torch, so recipes are checked without it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from jemtrack.parameters import Share, parameters

STEM_CHANNELS = 16
N_GROUPS = 3

NormName = Literal["none", "batch", "instance", "layer", "act"]


def _blocks_fit(depth: int) -> int:
    """Check that `depth` is 6n + 4: three groups of n blocks of two layers, and four others."""
    if depth >= 10 and depth % 6 == 4:
        return depth
    below = max(10, depth - (depth - 4) % 6)
    nearest = f"the nearest are {below} and {below + 6}" if depth > 10 else "the minimum is 10"
    raise ValueError(f"must be 6n + 4 with n >= 1: {nearest}")


# No published network is deeper or wider; to build one of 60,000 layers takes minutes.
Depth = Annotated[int, Field(le=1000), AfterValidator(_blocks_fit)]
Width = Annotated[int, Field(ge=1, le=1000)]


@parameters
class NetworkShape:
    """The choices for a wide residual network that do not depend on the data.

    Attributes:
        depth: number of layers, 6n + 4.
        width: the widening factor k: the three groups have 16k, 32k and 64k channels.
        norm: normalisation layer in the blocks.
        dropout_rate: probability with which a block drops an activation in training.
        uncond: take log p~(x) from the energy head instead of from the logits.
    """

    depth: Depth = 10
    width: Width = 2
    norm: NormName = "none"
    dropout_rate: Share = 0.0
    uncond: bool = False


@parameters
class WideResNetShape(NetworkShape):
    """All that determines a wide residual network except its weights.

    Attributes:
        channels: of the images.
        n_classes: number of classes.
    """

    depth: Depth
    width: Width
    channels: Literal[1, 3]
    n_classes: Annotated[int, Field(ge=2)]

    @property
    def n_weights(self) -> int:
        """The weights of all convolutions and both heads."""
        n_blocks, channels = (self.depth - 4) // 6, STEM_CHANNELS
        count = 9 * self.channels * channels
        for group in range(N_GROUPS):
            wide = STEM_CHANNELS * self.width * 2**group
            count += channels * wide * (9 + 1) + 9 * wide**2 * (2 * n_blocks - 1)
            channels = wide
        return count + channels * (self.n_classes + 1)

    def n_activations(self, side: int) -> int:
        """Count what the first group's convolutions keep of an image for its gradient."""
        n_blocks = (self.depth - 4) // 6
        return 2 * n_blocks * STEM_CHANNELS * self.width * side**2
