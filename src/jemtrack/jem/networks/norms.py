"""The normalisation layers that a network can have.

Letters: B batch, C channels, H height, W width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from jemtrack.jem.networks.shape import NormName as NormName


def make_norm(name: NormName, n_channels: int) -> nn.Module:
    """Build the layer called `name`, with a learned scale and bias per channel (except `none`)."""
    return _MAKERS[name](n_channels)


class ActNorm(nn.Module):
    """Scale and shift each channel, initially so that the first training batch is normalised.

    Unlike batch norm, it treats each image independently, in training too: the statistics of the
    first batch only initialise the weights. In evaluation mode before that, it is the identity.

    Source: Kingma & Dhariwal 2018, "Glow", section 3.1.
    """

    initialised: Tensor

    def __init__(self, n_channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.scale = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))
        # A buffer, so that a loaded model is not initialised again.
        self.register_buffer("initialised", torch.tensor(False))
        # The same on the CPU, which would wait for the GPU to ask it in each forward pass.
        self._is_initialised = False

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Scale and shift, (B, C, H, W); initialise the weights from the first training batch."""
        if self.training and not self._is_initialised:
            if not self.initialised:
                self._initialise(features_BCHW)
            self._is_initialised = True
        return features_BCHW * self.scale[:, None, None] + self.bias[:, None, None]

    def _load_from_state_dict(self, *loaded: Any) -> None:
        super()._load_from_state_dict(*loaded)
        self._is_initialised = False  # a checkpoint may be from before the first batch

    @torch.no_grad()
    def _initialise(self, features_BCHW: Tensor) -> None:
        mean_C = _all_reduce_mean(features_BCHW.mean((0, 2, 3)))
        centred_BCHW = features_BCHW - mean_C[:, None, None]
        variance_C = _all_reduce_mean(centred_BCHW.square().mean((0, 2, 3)))
        self.scale.copy_((variance_C + self.epsilon).rsqrt())
        self.bias.copy_(-mean_C * self.scale)
        self.initialised.fill_(True)


def _all_reduce_mean(statistic_C: Tensor) -> Tensor:
    """Average over the processes, if there are several: all replicas must start equal."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return statistic_C
    distributed.all_reduce(statistic_C)
    return statistic_C / distributed.get_world_size()


def _instance_norm(n_channels: int) -> nn.Module:
    return nn.InstanceNorm2d(n_channels, affine=True)


def _layer_norm(n_channels: int) -> nn.Module:
    # `nn.LayerNorm` would need the height and width; one group of all channels does not.
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
