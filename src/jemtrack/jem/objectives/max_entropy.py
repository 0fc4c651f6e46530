"""Cross entropy with a penalty under which every image is equally probable under p~(x).

The less log p~ varies over the data, the higher the entropy of p~ over them: with p the softmax
of log p~ over the batch, log B - H(p) = Var(log p~) / 2 + third order. No sampling is needed.

Letters: B batch, C channels in `BCHW` and classes in `logits_BC`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from jemtrack.errors import InputError
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.training.batches import Batch
from jemtrack.jem.training.options import MaxEntropyOptions
from jemtrack.parameters import parameters
from jemtrack.shared.metrics import declare_metric
from jemtrack.train.distributed import all_gather

CROSS_ENTROPY = declare_metric("cross_entropy")
ENTROPY_PENALTY = declare_metric("entropy_penalty")


@parameters
class MaxEntropyObjective(MaxEntropyOptions, ABC):
    """CE + `entropy_weight` * R over i of spread(m - log p~(x_i)), with m the mean over the batch.

    R is `entropy_reduction`. The published code sums, which multiplies the weight by the batch
    size. A subclass defines a penalty by its `spread`:

        @parameters
        class PseudoHuber(MaxEntropyObjective):
            delta: float = 1.0

            def spread(self, deviation_B: Tensor) -> Tensor:
                return (1 + (deviation_B / self.delta).square()).sqrt() - 1
    """

    @abstractmethod
    def spread(self, deviation_B: Tensor) -> Tensor:
        """Compute the penalty, (B,), of each deviation m - log p~(x_i), (B,)."""

    def __call__(self, models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Compute `loss`, and for the record `cross_entropy` and the unweighted `entropy_penalty`.

        `models["network"]` is a `JointEnergyModel`. Only `loss` has a gradient.
        """
        network = cast(JointEnergyModel, models["network"])
        logits_BC, log_density_B = _logits_and_log_density(network, batch)
        # The penalty compares each image with the mean of the whole batch, across processes.
        labels_B = all_gather(batch.labels_B)
        cross_entropy = functional.cross_entropy(all_gather(logits_BC), labels_B)
        entropy_penalty = self._penalty(all_gather(log_density_B))
        return {
            "loss": cross_entropy + self.entropy_weight * entropy_penalty,
            CROSS_ENTROPY: cross_entropy.detach(),
            ENTROPY_PENALTY: entropy_penalty.detach(),
        }

    def _penalty(self, log_density_B: Tensor) -> Tensor:
        # The mean is not detached: the gradient includes how it moves with each image.
        spread_B = self.spread(log_density_B.mean() - log_density_B)
        if spread_B.shape != log_density_B.shape:
            raise InputError(
                f"{type(self).__name__}.spread must return one number an image, of shape "
                f"{tuple(log_density_B.shape)}, got {tuple(spread_B.shape)}"
            )
        return spread_B.mean() if self.entropy_reduction == "mean" else spread_B.sum()


def _logits_and_log_density(network: JointEnergyModel, batch: Batch) -> tuple[Tensor, Tensor]:
    if batch.density_images_BCHW is None:
        return network.logits_and_log_density(batch.images_BCHW)
    # One forward pass of both batches is faster than two.
    images_BCHW = torch.cat([batch.images_BCHW, batch.density_images_BCHW])
    logits_BC, log_density_B = network.logits_and_log_density(images_BCHW)
    n_labelled = len(batch.images_BCHW)
    return logits_BC[:n_labelled], log_density_B[n_labelled:]
