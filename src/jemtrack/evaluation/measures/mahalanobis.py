"""The Mahalanobis score: how far an image's features are from those of the nearest class.

Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
Attacks" (2018), without its perturbation of the image: a Gaussian a class on the features, all
with one covariance. Letters: N images, F features, K classes.
"""

import numpy as np
import torch
from torch import Tensor

from jemtrack.errors import InputError


class Mahalanobis:
    """Scores images by their features; higher is more typical of the images it was fitted on.

    The covariance is Ledoit and Wolf's estimate (2004), which can be inverted where there are
    fewer images than features. A class without images has no mean and is left out.

    Args:
        features_NF: of training images.
        labels_N: their classes.

    Raises:
        InputError: when the two do not fit together, there is no image or a feature is not finite.
    """

    def __init__(self, features_NF: Tensor, labels_N: Tensor) -> None:
        from sklearn.covariance import ledoit_wolf  # takes a while to import

        if features_NF.ndim != 2 or labels_N.shape != features_NF.shape[:1] or not len(labels_N):
            raise InputError(
                "expected the features and the label of one image or more, got shapes "
                f"{tuple(features_NF.shape)} and {tuple(labels_N.shape)}"
            )
        if not features_NF.isfinite().all():
            raise InputError("the features are infinite or NaN: the model has diverged")
        seen_NF = features_NF.detach().cpu().double().numpy()
        _, index_N = np.unique(labels_N.cpu().numpy(), return_inverse=True)
        parts = [seen_NF[index_N == k] for k in range(index_N.max() + 1)]
        means_KF = np.stack([part_NF.mean(axis=0) for part_NF in parts])
        spread_NF = seen_NF - means_KF[index_N]
        covariance_FF, _ = ledoit_wolf(spread_NF, assume_centered=True)
        self._means_KF = torch.from_numpy(means_KF)
        self._precision_FF = torch.from_numpy(np.linalg.pinv(covariance_FF, hermitian=True))

    def __call__(self, features_NF: Tensor) -> Tensor:
        """Compute minus the squared distance to the nearest class mean, float64 (N,) on the CPU."""
        features_NF = features_NF.detach().cpu().double()
        nearest_N = torch.full((len(features_NF),), torch.inf, dtype=torch.float64)
        for mean_F in self._means_KF:
            apart_NF = features_NF - mean_F
            squared_N = ((apart_NF @ self._precision_FF) * apart_NF).sum(dim=1)
            nearest_N = torch.minimum(nearest_N, squared_N)
        return -nearest_N
