"""The normalisation layers that a network can be built with.

Letters: B batch, C channels, H height, W width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn

from jemtrack.jem.networks.shape import NormName as NormName


def make_norm(name: NormName, n_channels: int) -> nn.Module:
    """Build the layer called `name`, with a learned scale and bias a channel (except `none`)."""
    return _MAKERS[name](n_channels)


class ActNorm(nn.Module):
    """Scale and shift a channel; start by normalising the first batch seen in training.

    Unlike batch norm it treats each image alone, in training too: the statistics are read once
    and then learned from. In eval mode before that first batch it changes nothing.

    Source: Kingma & Dhariwal 2018, "Glow", section 3.1.
    """

    initialised: Tensor

    def __init__(self, n_channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.scale = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))
        # A buffer, so that a loaded model does not read its statistics anew.
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Scale and shift; in training, read the first batch's statistics before."""
        if self.training and not self.initialised:
            self._read_statistics(features_BCHW)
        return features_BCHW * self.scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _read_statistics(self, features_BCHW: Tensor) -> None:
        mean_C = _mean_over_processes(features_BCHW.mean((0, 2, 3)))
        centred_BCHW = features_BCHW - mean_C[:, None, None]
        variance_C = _mean_over_processes(centred_BCHW.square().mean((0, 2, 3)))
        self.scale.copy_((variance_C + self.epsilon).rsqrt())
        self.bias.copy_(-mean_C * self.scale)
        self.initialised.fill_(True)


def _mean_over_processes(statistic_C: Tensor) -> Tensor:
    """Replicas of a model must all start from one scale, so they pool what they saw."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return statistic_C
    distributed.all_reduce(statistic_C)
    return statistic_C / distributed.get_world_size()


def _instance_norm(n_channels: int) -> nn.Module:
    return nn.InstanceNorm2d(n_channels, affine=True)


def _layer_norm(n_channels: int) -> nn.Module:
    return nn.GroupNorm(1, n_channels)


def _no_norm(_n_channels: int) -> nn.Module:
    return nn.Identity()


_MAKERS: dict[NormName, Callable[[int], nn.Module]] = {
    "none": _no_norm,
    "batch": nn.BatchNorm2d,
    "instance": _instance_norm,
    "layer": _layer_norm,
    "act": ActNorm,
}
