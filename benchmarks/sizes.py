"""The networks and images of the benchmarks, equal for jemtrack and the reference.

Letters: N images, C channels, H height, W width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.reference.images import AugmentedImages, cycle, loader
from benchmarks.reference.network import Classifier
from jemtrack.data.augment import crop_padding
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.shared.random_streams import generator
from jemtrack.stages.train_args import TrainArgs

N_CLASSES = 10
SEED = 1


@dataclass(frozen=True)
class Size:
    """The size of a wide residual network, and of a batch of square images."""

    depth: int
    width: int
    side: int
    channels: int
    batch_size: int

    @property
    def name(self) -> str:
        """The name of the network and the shape of a batch."""
        images = f"{self.batch_size}x{self.channels}x{self.side}x{self.side}"
        return f"WRN-{self.depth}-{self.width}, {images}"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.side, self.side

    def params(self, n_epochs: int = 1, lr: float = 1e-4, n_steps: int = 0) -> TrainArgs:
        """Return a trainer's parameters; `n_steps` is the length of Langevin chains."""
        return TrainArgs(
            depth=self.depth,
            width=self.width,
            batch_size=self.batch_size,
            n_epochs=n_epochs,
            lr=lr,
            n_steps=n_steps,
        )

    def random_data(self, n_images: int | None = None) -> DataSplits:
        """Draw random images and labels, by default for 32 batches."""
        shape = (n_images or 32 * self.batch_size, *self.image_shape)
        stream = generator(SEED, "benchmark")
        train = LabelledImages(
            torch.randint(256, shape, generator=stream, dtype=torch.uint8),
            torch.randint(N_CLASSES, shape[:1], generator=stream),
        )
        none = train[torch.arange(0)]
        return DataSplits("random", N_CLASSES, True, SEED, train, valid=none, test=none)

    def plain_network(self, network: nn.Module) -> Classifier:
        """Build the reference's network with the current weights of `network`."""
        plain = Classifier(self.depth, self.width, self.channels, N_CLASSES)
        plain.load_state_dict(
            {name: weight.contiguous() for name, weight in network.state_dict().items()}
        )
        return plain


TINY = Size(depth=10, width=1, side=8, channels=1, batch_size=4)


def plain_images(part: LabelledImages, sigma: float, flip: bool) -> AugmentedImages:
    """Return the training images as the reference reads them."""
    pad = crop_padding(part.images_NCHW.shape[-1])
    return AugmentedImages(part.images_NCHW, part.labels_N, sigma, pad, flip)


def two_loaders(data: DataSplits, params: TrainArgs) -> list[Iterator[tuple[Tensor, Tensor]]]:
    """Return two loaders of the training images, as the published scripts have."""
    images = plain_images(data.train, params.sigma, data.flip)
    return [cycle(loader(images, params.batch_size)) for _ in range(2)]
