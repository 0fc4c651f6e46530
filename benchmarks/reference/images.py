"""Read and augment images one by one.

Letters: N images, C channels, H height, W width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


def augment_image(image_CHW: Tensor, row: int, column: int, flipped: bool, pad: int) -> Tensor:
    """Reflect-pad one uint8 image, crop it, flip it at random if asked, and scale it to [-1, 1]."""
    height, width = image_CHW.shape[1:]
    # NumPy pads an image of this size faster than PyTorch does.
    padded_CHW = np.pad(image_CHW.numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    crop_CHW = padded_CHW[:, row : row + height, column : column + width]
    if flipped:
        crop_CHW = crop_CHW[:, :, ::-1]
    return torch.from_numpy(np.ascontiguousarray(crop_CHW)).float() / 127.5 - 1


@dataclass
class AugmentedImages(Dataset):
    """Labelled uint8 images, augmented on reading; with `pad` 0, only noise is added."""

    images_NCHW: Tensor
    labels_N: Tensor
    sigma: float
    pad: int = 0
    flip: bool = False

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels_N)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return an augmented image and its label."""
        row, column = torch.randint(2 * self.pad + 1, (2,)).tolist()
        flipped = self.flip and torch.rand(1).item() < 0.5
        image_CHW = augment_image(self.images_NCHW[index], row, column, flipped, self.pad)
        return image_CHW + self.sigma * torch.randn_like(image_CHW), self.labels_N[index]


def loader(images: AugmentedImages, batch_size: int) -> DataLoader:
    """Return a loader in random order, without worker processes."""
    return DataLoader(images, batch_size, shuffle=True, num_workers=0, drop_last=True)


def cycle(batches: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of the loader, epoch after epoch, without end."""
    while True:
        yield from batches
