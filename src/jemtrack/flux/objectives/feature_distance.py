"""A perceptual loss: the distance of two images in the features of a network.

It is no LPIPS, whose features and calibration are of networks that were trained on ImageNet. Its
features are those of a small classifier of the training's own images.

Letters: B batch, C channels, H height, N images, W width.
"""

from collections.abc import Callable, Iterator
from itertools import chain, count, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from jemtrack.data.images import LabelledImages, to_unit_range
from jemtrack.shared.random_streams import EpochSampler

_WIDTHS = (16, 32, 64)
_N_STEPS, _BATCH_SIZE, _RATE = 300, 64, 2e-3
_SMALL = 1e-10


class FeatureNetwork(nn.Module):
    """Three convolutions at halving resolutions, and a linear classifier on their last means."""

    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__()
        pairs = zip((channels, *_WIDTHS), _WIDTHS, strict=False)
        self.convs = nn.ModuleList(nn.Conv2d(n_in, n_out, 3, padding=1) for n_in, n_out in pairs)
        self.head = nn.Linear(_WIDTHS[-1], n_classes)

    def features(self, images_BCHW: Tensor) -> Iterator[Tensor]:
        """Yield the activations (B, C, H, W) of each layer."""
        h_BCHW = images_BCHW
        for number, layer in enumerate(self.convs):
            if number:
                h_BCHW = functional.avg_pool2d(h_BCHW, 2)
            h_BCHW = functional.relu(layer(h_BCHW))
            yield h_BCHW

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Compute the logits."""
        *_, last_BCHW = self.features(images_BCHW)
        logits: Tensor = self.head(last_BCHW.mean(dim=(2, 3)))
        return logits


def feature_distance(
    network: FeatureNetwork,
    images: Tensor,
    targets: Tensor,
    mean: Callable[[Tensor], Tensor] = torch.mean,
) -> Tensor:
    """Compute the squared distance of normalised features, a mean over positions and layers.

    Each layer's features are a vector of length 1 at each position, as in LPIPS (Zhang et al.
    2018, https://arxiv.org/abs/1801.03924, equation 1), here with equal weights.
    """
    with torch.no_grad():
        wanted = [functional.normalize(each, eps=_SMALL) for each in network.features(targets)]
    distances = [
        mean((functional.normalize(found, eps=_SMALL) - target).square().sum(1, keepdim=True))
        for found, target in zip(network.features(images), wanted, strict=True)
    ]
    return torch.stack(distances).mean()


def trained_features(images: LabelledImages, n_classes: int, seed: int) -> FeatureNetwork:
    """Train the classifier for 300 steps; its weights are drawn from the global stream.

    `seed` draws its batches.
    """
    network = FeatureNetwork(images.images_NCHW.shape[1], n_classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    sampler = EpochSampler(len(images), _BATCH_SIZE, seed)
    batches = chain.from_iterable(map(sampler.epoch, count()))
    for indices_B in islice(batches, _N_STEPS):
        batch = images[indices_B]
        logits_BC = network(to_unit_range(batch.images_NCHW))
        optimizer.zero_grad()
        functional.cross_entropy(logits_BC, batch.labels_N).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.requires_grad_(False)
