"""The distributions from which fresh Langevin chains start.

Letters: B batch, C channels, H height, W width, N training images, P pixels (C * H * W), K classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from jemtrack.data.images import LabelledImages, to_unit_range
from jemtrack.errors import ParameterError

# Draws starts for these classes, (B,) to (B, C, H, W), from a generator on the same device.
Starts = Callable[[Tensor, torch.Generator], Tensor]

# Added to the diagonal of the covariance: a pixel that is constant within a class has variance 0.
_JITTER = 1e-4


class UniformStarts:
    """Draw every pixel uniformly from [-1, 1], for all classes; `image_shape` is (C, H, W)."""

    def __init__(self, image_shape: torch.Size) -> None:
        self.image_shape = image_shape

    def __call__(self, labels_B: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a start for each label, (B, C, H, W)."""
        shape = (len(labels_B), *self.image_shape)
        return torch.rand(shape, generator=generator, device=labels_B.device) * 2 - 1


class GaussianStarts:
    """Draw from a Gaussian with the mean and covariance of the training images of the class.

    Memory: a P x P matrix per class, 25 MB for ten classes of 28x28 pixels, 377 MB for 32x32
    pixels in colour.

    Raises:
        ParameterError: if a class has no training image.

    Source: Yang & Ji 2021, JEM++ (https://arxiv.org/abs/2109.09032), informative initialization.
    """

    def __init__(self, images: LabelledImages, n_classes: int) -> None:
        self.image_shape = images.images_NCHW.shape[1:]
        check_each_class(images, n_classes)
        gaussians = [
            _gaussian(images.images_NCHW[images.labels_N == label]) for label in range(n_classes)
        ]
        means, factors = zip(*gaussians, strict=True)
        self.means_KP = torch.stack(means)
        self.factors_KPP = torch.stack(factors)

    def __call__(self, labels_B: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a start for each label, (B, C, H, W)."""
        means_BP = self.means_KP[labels_B]
        noise_BP = torch.randn(means_BP.shape, generator=generator, device=labels_B.device)
        starts_BP = means_BP
        for label, factor_PP in enumerate(self.factors_KPP):
            # For all chains: selecting those of the class would copy the labels from the device.
            drawn_BP = torch.addmm(means_BP, noise_BP, factor_PP.T)
            starts_BP = torch.where((labels_B == label)[:, None], drawn_BP, starts_BP)
        return starts_BP.view(-1, *self.image_shape)


def check_each_class(images: LabelledImages, n_classes: int) -> None:
    """Check that each class has an image to start from.

    Raises:
        ParameterError: if one has none.
    """
    if not bool(images.labels_N.bincount(minlength=n_classes).all()):
        raise ParameterError("start must be uniform if a class has no training image")


def _gaussian(images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean (P,) and the Cholesky factor (P, P) of the covariance of uint8 images."""
    pixels_NP = to_unit_range(images_NCHW).flatten(1)
    mean_P = pixels_NP.mean(0)
    centred_NP = pixels_NP - mean_P
    covariance_PP = centred_NP.T @ centred_NP / max(1, len(pixels_NP) - 1)
    covariance_PP.diagonal().add_(_JITTER)
    factor_PP: Tensor = torch.linalg.cholesky(covariance_PP)
    return mean_P, factor_PP
