"""Draw training batches of labelled images, and augment them on the device.

Letters: B batch, N images.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from jemtrack.data.augment import Augmentation, add_noise, augment
from jemtrack.data.images import LabelledImages, to_unit_range
from jemtrack.errors import ParameterError
from jemtrack.shared.random_streams import EpochSampler, generator, stream_seed


@dataclass(frozen=True)
class Batch:
    """Labelled images, and further images for the density if not all images are labelled.

    Attributes:
        images_BCHW: float images around [-1, 1].
        labels_B: integer labels from 0.
        density_images_BCHW: float images for the density, another number of them; None: the
            density is learned from `images_BCHW` as well.
        seed: seed of all random numbers that an objective draws for the batch.
        step: optimization steps of the phase before the one with this batch, for what warms up;
            the engine sets it.
    """

    images_BCHW: Tensor
    labels_B: Tensor
    density_images_BCHW: Tensor | None = None
    seed: int = 0
    step: int = 0


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """The batches of an epoch; a batch is a pure function of seed, epoch, number and retry.

    With `labelled_M`, the indices of the labelled images, a batch has as many labelled images as
    images for the density, and an epoch is one pass over the latter, which are all images. With
    `plain_density`, the images for the density are neither cropped nor flipped; if all images are
    labelled, they are drawn independently of the labelled ones.
    """

    images: LabelledImages
    augmentation: Augmentation
    batch_size: int
    seed: int
    labelled_M: Tensor | None = None
    plain_density: bool = False

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._sampler)

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on.

        Each `retry` after a divergence has the same order of images, and other noise.
        """
        batches = enumerate(self._sampler.epoch(epoch, start), start)
        labelled = self._labelled_batches(epoch, start)
        density = self._density_batches(epoch, start)
        for number, indices_B in batches:
            # Without a retry, the streams have the names that they have in any other training.
            stream = (epoch, number, *([retry] if retry else []))
            noise = self._generator("augmentation", *stream)
            # With few labels, the pass over all images is for the density.
            labelled_B, density_B = (
                (indices_B, next(density, None))
                if labelled is None
                else (next(labelled), indices_B)
            )
            yield Batch(
                self._augmented(labelled_B, noise),
                self._labels(labelled_B),
                None if density_B is None else self._density_images(density_B, noise),
                stream_seed(self.seed, "objective", *stream),
            )

    @property
    def _sampler(self) -> EpochSampler:
        return EpochSampler(len(self.images), self.batch_size, self.seed)

    def _density_batches(self, epoch: int, start: int) -> Iterator[Tensor]:
        """Yield indices of images for the density, if they are drawn apart from the labelled."""
        if self.plain_density:
            seed = stream_seed(self.seed, "density")
            yield from EpochSampler(len(self.images), self.batch_size, seed).epoch(epoch, start)

    def _density_images(self, indices_B: Tensor, noise: torch.Generator) -> Tensor:
        if not self.plain_density:
            return self._augmented(indices_B, noise)
        images_BCHW = self.images.images_NCHW[indices_B.to(self.images.images_NCHW.device)]
        return add_noise(to_unit_range(images_BCHW), self.augmentation.sigma, noise)

    def _labelled_batches(self, epoch: int, start: int) -> Iterator[Tensor] | None:
        """Return batches of labelled images: passes over them that run across epochs."""
        if self.labelled_M is None:
            return None
        n_labelled = len(self.labelled_M)
        sampler = EpochSampler(n_labelled, self.batch_size, stream_seed(self.seed, "labelled"))
        n_used = epoch * len(self) + start  # batches before this one, in all epochs
        return self._passes(sampler, self.labelled_M, n_used)

    @staticmethod
    def _passes(sampler: EpochSampler, indices_M: Tensor, first: int) -> Iterator[Tensor]:
        done, start = divmod(first, len(sampler))
        while True:
            for positions_B in sampler.epoch(done, start):
                yield indices_M[positions_B]
            done, start = done + 1, 0

    def _generator(self, *names: str | int) -> torch.Generator:
        return generator(self.seed, *names, device=self.images.images_NCHW.device)

    def _augmented(self, indices_B: Tensor, noise: torch.Generator) -> Tensor:
        images_BCHW = self.images.images_NCHW[indices_B.to(self.images.images_NCHW.device)]
        return augment(images_BCHW, self.augmentation, noise)

    def _labels(self, indices_B: Tensor) -> Tensor:
        return self.images.labels_N[indices_B.to(self.images.labels_N.device)]


def pick_labelled(labels_N: Tensor, per_class: int, seed: int) -> Tensor:
    """Draw `per_class` images of each class; return their indices, sorted.

    Raises:
        ParameterError: if a class has fewer images.
    """
    chosen = []
    for label in torch.unique(labels_N).tolist():
        members = (labels_N == label).nonzero().squeeze(1)
        if len(members) < per_class:
            raise ParameterError(
                f"labels_per_class must be <= {labels_N.bincount().min()}, the training images "
                f"of the rarest class, got {per_class}"
            )
        order = torch.randperm(len(members), generator=generator(seed, "labels", label))
        chosen.append(members[order[:per_class].to(members.device)])
    return torch.cat(chosen).sort().values
