"""Batches of images with captions.

Letters: B batch, C channels, H height, T tokens, W width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from jemtrack.data.augment import Augmentation, augment
from jemtrack.data.images import LabelledImages
from jemtrack.shared.random_streams import EpochSampler, generator, stream_seed
from jemtrack.train.distributed import local_shard, world_size


@dataclass(frozen=True)
class CaptionedBatch:
    """Images with a caption each.

    Attributes:
        images_BCHW: float images in [-1, 1].
        tokens_BT: the captions' tokens; see `jemtrack.flux.captions`.
        size: images in the whole batch, of which these are this process's share.
        seed: seed of all random numbers that an objective draws for the batch.
        step: optimization steps of the phase before the one with this batch; the engine sets it.
    """

    images_BCHW: Tensor
    tokens_BT: Tensor
    size: int
    seed: int = 0
    step: int = 0

    def noise(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal noise for the images here, (B, *shape), from the stream `name`.

        It is drawn for the whole batch, so it does not depend on how many processes share it, if
        several do.
        """
        device = self.images_BCHW.device
        stream = generator(self.seed, name, device=device)
        noise = torch.randn((self.size, *shape), generator=stream, device=device)
        return noise if len(self.images_BCHW) == self.size else local_shard(noise)

    def mean(self, values: Tensor) -> Tensor:
        """Average values (B, ...) of the images here, for a mean over the whole batch.

        Shards need not have one length: the mean of this over the processes, which the engine
        takes of losses and gradients, is the mean over all images.
        """
        return values.flatten(1).mean(dim=1).sum() * (world_size() / self.size)


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """The batches of an epoch; a batch is a pure function of seed, epoch, number and retry.

    `tokens_LPT` has the tokens of each class's captions, P of them, of which an image has one at
    random in each epoch.
    """

    images: LabelledImages
    tokens_LPT: Tensor
    flip: bool
    batch_size: int
    seed: int

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._sampler)

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[CaptionedBatch]:
        """Yield the batches of an epoch from number `start` on.

        Each `retry` after a divergence has the same order of images, and other noise.
        """
        for number, indices_B in enumerate(self._sampler.epoch(epoch, start), start):
            yield self._batch(indices_B, (epoch, number, *([retry] if retry else [])))

    @property
    def _sampler(self) -> EpochSampler:
        return EpochSampler(len(self.images), self.batch_size, self.seed)

    def _batch(self, indices_B: Tensor, stream: tuple[int, ...]) -> CaptionedBatch:
        device = self.images.images_NCHW.device
        chosen = self.images[indices_B.to(device)]
        # Neither shifted nor noised: what the autoencoder restores is the image itself.
        plain = Augmentation(sigma=0, flip=self.flip, pad=0)
        noise = generator(self.seed, "augmentation", *stream, device=device)
        n_captions = self.tokens_LPT.shape[1]
        words = generator(self.seed, "captions", *stream, device=device)
        caption_B = torch.randint(n_captions, (len(indices_B),), generator=words, device=device)
        return CaptionedBatch(
            augment(chosen.images_NCHW, plain, noise),
            self.tokens_LPT[chosen.labels_N, caption_B],
            len(indices_B),
            stream_seed(self.seed, "objective", *stream),
        )
