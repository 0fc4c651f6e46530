"""The shape of a network, free of torch, so that a recipe can be checked without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from jemtrack.parameters import AtLeastOne, Share, parameters

if TYPE_CHECKING:
    from jemtrack.jem.networks.energy_model import JointEnergyModel

NormName = Literal["none", "batch", "instance", "layer", "act"]


def _blocks_fit(depth: int) -> int:
    """Check that `depth` is 6n + 4: three groups of n blocks of two layers, and the four others."""
    if depth >= 10 and depth % 6 == 4:
        return depth
    below = max(10, depth - (depth - 4) % 6)
    nearest = f"the nearest are {below} and {below + 6}" if depth > 10 else "the least is 10"
    raise ValueError(f"must be 6n + 4 with n >= 1: {nearest}")


Depth = Annotated[int, AfterValidator(_blocks_fit)]


@parameters
class NetworkShape:
    """What can be chosen of a wide residual network, whatever its images and classes.

    Attributes:
        depth: layers, 6n + 4.
        width: the widening factor k: the three groups have 16k, 32k and 64k channels.
        norm: normalisation in the blocks.
        dropout_rate: share of the activations that a block drops in training.
        uncond: take log p~(x) from the energy head instead of from the logits.
    """

    depth: Depth = 10
    width: AtLeastOne = 2
    norm: NormName = "none"
    dropout_rate: Share = 0.0
    uncond: bool = False


@parameters
class WideResNetShape(NetworkShape):
    """All that determines a wide residual network, apart from its weights."""

    depth: Depth
    width: AtLeastOne
    channels: Literal[1, 3]
    n_classes: Annotated[int, Field(ge=2)]

    def build_model(self) -> JointEnergyModel:
        """Build the network for images of 8x8 to 32x32, its weights drawn from the global seed."""
        from jemtrack.jem.networks.energy_model import JointEnergyModel
        from jemtrack.jem.networks.wide_resnet import WideResNetTrunk

        trunk = WideResNetTrunk(self)
        return JointEnergyModel(trunk, trunk.n_features, self.n_classes, self.uncond)
