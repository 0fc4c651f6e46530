"""The sizes of the networks; this module does not import torch, so recipes are checked without it.

A size that a recipe does not give follows from the images: see `chosen_sizes`.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from jemtrack.parameters import FROM_LIST, parameters

SMALLEST_SIDE, LARGEST_SIDE = 8, 256
MAX_TOKENS = 16  # of a caption
PAD, UNKNOWN = 0, 1  # tokens that are no word; words follow
MODELS = ("compressor", "expander", "flow_processor", "text_encoder", "discriminator")

_LEAST_LATENT_SIDE = 4
_U_NET_TOKENS = 64  # pixels of the latent below which the flow processor is a U-Net
_LARGE_SIDE = 64  # of an image, from which on the autoencoder is wider and halves it more often

Side = Annotated[int, Field(ge=SMALLEST_SIDE, le=LARGEST_SIDE)]
Channels = Annotated[int, Field(ge=1, le=4096)]


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


EvenChannels = Annotated[int, Field(ge=2, le=4096), AfterValidator(_even)]


@parameters
class FluxShape:
    """The choices for the networks that do not depend on the data; null: by the images' size.

    Attributes:
        vae_dim: channels of the latent; 4.
        feature_maps_dim: channels of the flow processor; 48 as a U-Net, for latents of less than
            64 pixels, and 128 as a transformer.
        text_embedding_dim: of the text encoder; 64.
    """

    vae_dim: Channels | None = None
    feature_maps_dim: EvenChannels | None = None
    text_embedding_dim: EvenChannels | None = None


@parameters
class FluxSizes:
    """All that determines the networks except their weights.

    Attributes:
        channels: of the images.
        height: of the images.
        width: of the images.
        vae_dim: channels of the latent.
        feature_maps_dim: channels of the flow processor.
        text_embedding_dim: of the text encoder.
        spade: whether the expander's norms are modulated by the latent.
        vocabulary: the words that the text encoder knows.
        models: the networks that there are.
        mean_flow: whether the flow processor computes mean velocities over spans of time.
    """

    channels: Literal[1, 3]
    height: Side
    width: Side
    vae_dim: Channels
    feature_maps_dim: EvenChannels
    text_embedding_dim: EvenChannels
    spade: bool
    vocabulary: Annotated[tuple[str, ...], FROM_LIST]
    models: Annotated[tuple[Literal[MODELS], ...], FROM_LIST]  # type: ignore[valid-type]
    mean_flow: bool = False

    @property
    def base_channels(self) -> int:
        """The channels of the autoencoder after its first halving."""
        return 24 if max(self.height, self.width) < _LARGE_SIDE else 32

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the image, and after each halving of the compressor."""
        return halved_sides(self.height, self.width)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latent."""
        return (self.vae_dim, *self.levels[-1])

    @property
    def has_u_net(self) -> bool:
        """Whether the flow processor is a U-Net."""
        return is_small(self.height, self.width)


def halvings(height: int, width: int) -> int:
    """Return how often the compressor halves an image: 1 for 8 pixels, 2 for 28, 4 for 256."""
    side = min(height, width)
    most = 2 if side < _LARGE_SIDE else 3 if side < 256 else 4
    count = 0
    while count < most and (side := (side + 1) // 2) >= _LEAST_LATENT_SIDE:
        count += 1
    return count


def halved_sides(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return height and width of an image, and after each halving of the compressor."""
    sides = [(height, width)]
    for _ in range(halvings(height, width)):
        sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
    return tuple(sides)


def is_small(height: int, width: int) -> bool:
    """Return whether the latent of such images has less than 64 pixels."""
    latent_height, latent_width = halved_sides(height, width)[-1]
    return latent_height * latent_width < _U_NET_TOKENS


def chosen_sizes(
    shape: FluxShape,
    image_shape: tuple[int, int, int],
    vocabulary: tuple[str, ...],
    models: tuple[str, ...],
    spade: bool,
    mean_flow: bool = False,
) -> FluxSizes:
    """Fill up the sizes that `shape` leaves open, for images (C, H, W)."""
    channels, height, width = image_shape
    return FluxSizes(
        channels=channels,  # type: ignore[arg-type]
        height=height,
        width=width,
        vae_dim=shape.vae_dim or 4,
        feature_maps_dim=shape.feature_maps_dim or (48 if is_small(height, width) else 128),
        text_embedding_dim=shape.text_embedding_dim or 64,
        spade=spade,
        vocabulary=vocabulary,
        models=models,
        mean_flow=mean_flow,
    )
