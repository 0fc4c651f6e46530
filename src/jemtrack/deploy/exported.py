"""The module that is exported: from uint8 images to all that a bundle says about them.

Letters: B batch, C channels in `BCHW` and classes in `BC`, F features, K classes with images.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from jemtrack.data.images import to_unit_range
from jemtrack.evaluation.measures.mahalanobis import Mahalanobis
from jemtrack.jem.networks.energy_model import JointEnergyModel


class WhitenedMahalanobis(Mahalanobis):
    """The Mahalanobis score as plain Euclidean distances, of which float32 loses least."""

    def whitened(self) -> tuple[Tensor, Tensor]:
        """Return the class means (K, F) and W (F, F): the distance is ||features W - mean||^2."""
        values_F, vectors_FF = np.linalg.eigh(self._precision_FF.numpy())
        root_FF = torch.from_numpy(vectors_FF * np.sqrt(values_F.clip(min=0)))
        return (self._means_KF @ root_FF).float(), root_FF.float()


class Outputs(NamedTuple):
    """What a bundle says about B images; the names are those of the graph's outputs.

    Attributes:
        logits: (B, C).
        probabilities: (B, C), softmax of the logits over the temperature.
        log_density: log p~(x), (B,), in nats.
        mahalanobis: minus the squared distance to the nearest class, (B,).
        refused: whether log p~(x) is below the threshold, (B,).
    """

    logits: Tensor
    probabilities: Tensor
    log_density: Tensor
    mahalanobis: Tensor
    refused: Tensor


class DeployedModel(nn.Module):
    """Computes the `Outputs` for uint8 images (B, C, H, W), a temperature and a threshold."""

    means_KF: Tensor
    whitening_FF: Tensor

    def __init__(self, network: JointEnergyModel, mahalanobis: WhitenedMahalanobis) -> None:
        super().__init__()
        self.network = network
        means_KF, whitening_FF = mahalanobis.whitened()
        self.register_buffer("means_KF", means_KF)
        self.register_buffer("whitening_FF", whitening_FF)
        self.eval()

    def forward(self, images_BCHW: Tensor, temperature: Tensor, threshold: Tensor) -> Outputs:
        """Compute the outputs, all in float32."""
        features_BF = self.network.trunk(to_unit_range(images_BCHW))
        logits_BC, log_density_B = self.network.heads(features_BF)
        apart_BKF = (features_BF @ self.whitening_FF)[:, None] - self.means_KF
        return Outputs(
            logits=logits_BC,
            probabilities=(logits_BC / temperature).softmax(dim=1),
            log_density=log_density_B,
            mahalanobis=-apart_BKF.square().sum(dim=2).amin(dim=1),
            refused=~(log_density_B >= threshold),  # NaN is refused, too
        )
