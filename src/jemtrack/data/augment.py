"""Augmentation of whole batches on the device that holds them.

The order is fixed: reflect-pad and crop back at random, flip where the data set allows it,
scale to [-1, 1], add Gaussian noise. A generator must live on the device of the images.

Letters: B batch, C channels, H height, W width, P pixels of one channel (H * W).
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from jemtrack.data.images import to_unit_range
from jemtrack.errors import InputError
from jemtrack.parameters import parameters


@parameters
class Augmentation:
    """How training images are augmented.

    `sigma` is the standard deviation of the noise on the scale [-1, 1], `pad` the largest shift of
    the crop in pixels (usually `crop_padding(side)`), `flip` is for natural images only: a
    mirrored digit is not a digit.
    """

    sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    flip: bool
    pad: Annotated[int, Field(ge=0)]


def augment(images_BCHW: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Convert uint8 images to what a network sees in training: float32, around [-1, 1].

    Draws from `generator`, in this order: two shifts per image, a flip per image (only with
    `flip`), noise per pixel (only with `sigma` > 0).

    Raises:
        InputError: if `pad` is not smaller than the image.
    """
    n_images, device = len(images_BCHW), images_BCHW.device
    shifts_B2 = torch.randint(
        2 * augmentation.pad + 1, (n_images, 2), generator=generator, device=device
    )
    flipped_B = None
    if augmentation.flip:
        flipped_B = torch.rand(n_images, generator=generator, device=device) < 0.5
    images_BCHW = shifted_crop(images_BCHW, shifts_B2, augmentation.pad, flipped_B)
    return add_noise(to_unit_range(images_BCHW), augmentation.sigma, generator)


def crop_padding(side: int) -> int:
    """Return the padding for square images of `side` pixels: 4, but 1 below 16 pixels.

    The published 4 is meant for 28 and 32 pixels; it would be over a quarter of the side of an
    image smaller than 16, and 8x8 digits allow at most 1.
    """
    return 1 if side < 16 else 4


def shifted_crop(
    images_BCHW: Tensor, shifts_B2: Tensor, pad: int, flipped_B: Tensor | None = None
) -> Tensor:
    """Reflect-pad each image by `pad` and crop it back to its size at its (row, column) shift.

    The shifts range from 0 to 2 * `pad`; a shift of `pad` leaves the image as it is. Where
    `flipped_B` (bool) is true, the crop is mirrored left and right.

    Raises:
        InputError: if `pad` is not smaller than the image.
    """
    height, width = images_BCHW.shape[2:]
    if pad >= min(height, width):
        raise InputError(f"pad must be < the image's side, got {pad} for {height}x{width} pixels")
    rows_BH = _reflected(shifts_B2[:, :1] - pad, height)
    columns_BW = _reflected(shifts_B2[:, 1:] - pad, width)
    if flipped_B is not None:
        columns_BW = torch.where(flipped_B[:, None], columns_BW.flip(1), columns_BW)
    # Nothing is really padded or mirrored: one gather fetches every pixel from where it is.
    source_BP = (rows_BH[:, :, None] * width + columns_BW[:, None, :]).flatten(1)
    pixels_BCP = images_BCHW.flatten(2)
    source_BCP = source_BP[:, None].expand_as(pixels_BCP)
    return pixels_BCP.gather(2, source_BCP).view(images_BCHW.shape)


def add_noise(images_BCHW: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma`; 0 draws and adds nothing."""
    if sigma == 0:
        return images_BCHW
    noise_BCHW = torch.randn(
        images_BCHW.shape, generator=generator, device=images_BCHW.device, dtype=images_BCHW.dtype
    )
    return noise_BCHW.mul_(sigma).add_(images_BCHW)


def _reflected(shift_B1: Tensor, side: int) -> Tensor:
    """Return the indices of the pixels along one side after a shift, mirrored at both borders."""
    position_BS = torch.arange(side, device=shift_B1.device) + shift_B1
    last = side - 1
    return last - (last - position_BS.abs()).abs()
