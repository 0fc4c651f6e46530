"""How far apart two sets of images are on the features of a classifier.

Letters: M and N images of the two sets, F features.
"""

from torch import Tensor

from jemtrack.errors import InputError


def squared_mmd(one_MF: Tensor, other_NF: Tensor) -> float:
    """Estimate the squared maximum mean discrepancy with the kernel (x.y / F + 1)^3, without bias.

    It is 0 on average where both sets are of one distribution, and may be below. Unlike a
    Fréchet distance it can be estimated from few images. On the features of the Inception
    network it would be the kernel Inception distance (Bińkowski et al., "Demystifying MMD GANs",
    2018); on others it must not be called that, nor be compared with published figures.

    Raises:
        InputError: when a set has fewer than two images, or the sets have other features.
    """
    if one_MF.ndim != 2 or other_NF.ndim != 2 or one_MF.shape[1] != other_NF.shape[1]:
        raise InputError(
            "expected two sets with equally many features an image, got shapes "
            f"{tuple(one_MF.shape)} and {tuple(other_NF.shape)}"
        )
    if min(len(one_MF), len(other_NF)) < 2:
        raise InputError("a distance needs two images or more of each set")
    one_MF, other_NF = one_MF.detach().cpu().double(), other_NF.detach().cpu().double()
    across = _kernel(one_MF, other_NF).mean()
    return float(_without_itself(one_MF) + _without_itself(other_NF) - 2 * across)


def _without_itself(features_NF: Tensor) -> Tensor:
    """Average the kernel over pairs of two different images."""
    kernel_NN = _kernel(features_NF, features_NF)
    count = len(features_NF)
    return (kernel_NN.sum() - kernel_NN.trace()) / (count * (count - 1))


def _kernel(one_MF: Tensor, other_NF: Tensor) -> Tensor:
    kernel_MN: Tensor = (one_MF @ other_NF.T / one_MF.shape[1] + 1) ** 3
    return kernel_MN
