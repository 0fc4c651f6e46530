"""Common corruptions of images by cameras and scans, at five strengths.

The kinds follow Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations" (2019), and, for digits and the like, Mu and Gilmer, "MNIST-C"
(2019). The strengths are this project's, relative to the size of the images, so that they suit
8x8 as well as 32x32 pixels: results do not compare with those of the published benchmarks.

Letters: N images, C channels, H rows, W columns. Values are from 0 to 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from jemtrack.errors import ParameterError
from jemtrack.shared.random_streams import generator

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]
STRENGTHS = (1, 2, 3, 4, 5)


def gaussian_noise(images_NCHW: Tensor, strength: int, stream: torch.Generator) -> Tensor:
    """Add normal noise of standard deviation .08 to .38 to every value."""
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[strength - 1]
    return images_NCHW + deviation * torch.randn(images_NCHW.shape, generator=stream)


def impulse_noise(images_NCHW: Tensor, strength: int, stream: torch.Generator) -> Tensor:
    """Make 3% to 27% of the pixels black or white."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[strength - 1]
    drawn_N1HW = torch.rand(images_NCHW[:, :1].shape, generator=stream)
    black_NCHW = images_NCHW.masked_fill(drawn_N1HW < share / 2, 0.0)
    return black_NCHW.masked_fill(drawn_N1HW > 1 - share / 2, 1.0)


def blur(images_NCHW: Tensor, strength: int, stream: torch.Generator) -> Tensor:
    """Blur with a Gaussian of standard deviation 2% to 10% of the width."""
    deviation = (0.02, 0.035, 0.05, 0.075, 0.1)[strength - 1] * images_NCHW.shape[3]
    reach = max(1, round(3 * deviation))
    weight_K = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    weight_K, channels = weight_K / weight_K.sum(), images_NCHW.shape[1]
    padded_NCHW = functional.pad(images_NCHW, (reach, reach, reach, reach), "replicate")
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        kernel = weight_K.view(shape).repeat(channels, 1, 1, 1)
        padded_NCHW = functional.conv2d(padded_NCHW, kernel, groups=channels)
    return padded_NCHW


def contrast(images_NCHW: Tensor, strength: int, stream: torch.Generator) -> Tensor:
    """Scale the distance of all values from the image's mean to 75% to 15%."""
    share = (0.75, 0.5, 0.4, 0.3, 0.15)[strength - 1]
    mean_N111 = images_NCHW.mean(dim=(1, 2, 3), keepdim=True)
    return mean_N111 + share * (images_NCHW - mean_N111)


def brightness(images_NCHW: Tensor, strength: int, stream: torch.Generator) -> Tensor:
    """Add .1 to .5 to all values."""
    return images_NCHW + strength / 10


def rotation(images_NCHW: Tensor, strength: int, stream: torch.Generator) -> Tensor:
    """Rotate by 8 to 40 degrees, left or right; new pixels are black."""
    angle_N = torch.deg2rad(8.0 * strength * _signs(len(images_NCHW), stream))
    cosine_N, sine_N, zero_N = angle_N.cos(), angle_N.sin(), torch.zeros_like(angle_N)
    rows = [
        torch.stack(row, 1) for row in ((cosine_N, -sine_N, zero_N), (sine_N, cosine_N, zero_N))
    ]
    return _moved(images_NCHW, torch.stack(rows, 1))


def translation(images_NCHW: Tensor, strength: int, stream: torch.Generator) -> Tensor:
    """Shift by 5% to 25% of width and height, in one of four directions; new pixels are black."""
    count = len(images_NCHW)
    shift_N2 = 0.1 * strength * torch.stack([_signs(count, stream), _signs(count, stream)], 1)
    identity_N22 = torch.eye(2).expand(count, 2, 2)
    return _moved(images_NCHW, torch.cat([identity_N22, shift_N2[:, :, None]], 2))


def occlusion(images_NCHW: Tensor, strength: int, stream: torch.Generator) -> Tensor:
    """Cover any part with a black square of 15% to 55% of the smaller side."""
    count, _, height, width = images_NCHW.shape
    side = max(1, round((0.05 + 0.1 * strength) * min(height, width)))
    hidden = []
    for length in (height, width):
        first_N1 = torch.randint(length - side + 1, (count, 1), generator=stream)
        at_L = torch.arange(length)
        hidden.append((at_L >= first_N1) & (at_L < first_N1 + side))
    hidden_NHW = hidden[0][:, :, None] & hidden[1][:, None, :]
    return images_NCHW.masked_fill(hidden_NHW[:, None], 0.0)


CORRUPTIONS: dict[str, Corruption] = {
    each.__name__: each
    for each in (
        gaussian_noise,
        impulse_noise,
        blur,
        contrast,
        brightness,
        rotation,
        translation,
        occlusion,
    )
}


def corrupt(images_NCHW: Tensor, kind: str, strength: int, seed: int) -> Tensor:
    """Corrupt uint8 images (N, C, H, W) at a strength from 1 to 5; return uint8 again.

    `seed` determines all random numbers, separately for each kind and strength.

    Raises:
        ParameterError: if the kind or the strength is not known.
    """
    if kind not in CORRUPTIONS:
        raise ParameterError(f"corruptions must be of {', '.join(CORRUPTIONS)}, got {kind!r}")
    if strength not in STRENGTHS:
        raise ParameterError(f"strength must be 1 to 5, got {strength}")
    stream = generator(seed, f"corruption {kind}", strength)
    corrupted_NCHW = CORRUPTIONS[kind](images_NCHW.cpu().float() / 255, strength, stream)
    return (corrupted_NCHW.clamp(0, 1) * 255).round().to(torch.uint8)


def _signs(count: int, stream: torch.Generator) -> Tensor:
    return torch.randint(2, (count,), generator=stream).float() * 2 - 1


def _moved(images_NCHW: Tensor, affine_N23: Tensor) -> Tensor:
    grid_NHW2 = functional.affine_grid(affine_N23, [*images_NCHW.shape], align_corners=False)
    return functional.grid_sample(images_NCHW, grid_NHW2, align_corners=False)
