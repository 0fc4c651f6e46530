"""Small networks and batches of the family flux, for tests."""

import torch
from torch import nn

from jemtrack.flux.batches import CaptionedBatch
from jemtrack.flux.networks.model_file import make_network
from jemtrack.flux.networks.shape import MODELS, FluxShape, FluxSizes, chosen_sizes

WORDS = ("digit", "seven", "the")


def sizes_of(
    channels=1, height=8, width=8, spade=True, models=MODELS, mean_flow=False, **shape
) -> FluxSizes:
    chosen = {"feature_maps_dim": 8, "text_embedding_dim": 8, **shape}
    image = channels, height, width
    return chosen_sizes(FluxShape(**chosen), image, WORDS, models, spade, mean_flow)


def networks(sizes=None, seed=0) -> dict[str, nn.Module]:
    """Make all networks; what starts at zero is drawn, so that everything has an effect."""
    torch.manual_seed(seed)
    sizes = sizes or sizes_of()
    made = {name: make_network(name, sizes) for name in sizes.models}
    for model in made.values():
        for weight in model.parameters():
            if not weight.any():
                nn.init.normal_(weight, std=0.1)
    return made


def batch_of(n=4, channels=1, height=8, width=8, step=0, seed=3) -> CaptionedBatch:
    stream = torch.Generator().manual_seed(seed)
    images = torch.rand(n, channels, height, width, generator=stream) * 2 - 1
    tokens = torch.randint(2, 5, (n, 4), generator=stream)
    return CaptionedBatch(images, tokens, n, seed, step)


def noise(*shape, seed=1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
