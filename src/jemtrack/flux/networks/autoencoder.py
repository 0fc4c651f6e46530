"""The variational autoencoder: a compressor to a latent map, an expander back to the image.

Letters: B batch, C channels, H height, W width; `z` is the latent map.
"""

from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from jemtrack.flux.networks.layers import (
    ResidualBlock,
    channels_last,
    conv,
    group_norm,
    zeroed,
)
from jemtrack.flux.networks.shape import FluxSizes

_LOG_VARIANCE = (-30.0, 20.0)  # beyond these, its exponential is 0 or infinite in float32
_SPADE_HIDDEN = 32


class Posterior(NamedTuple):
    """The distribution q(z|x) of a latent map: independent Gaussians."""

    mean_BCHW: Tensor
    log_variance_BCHW: Tensor

    def sample(self, noise_BCHW: Tensor) -> Tensor:
        """Turn standard normal noise into a sample, through which gradients flow."""
        return self.mean_BCHW + (0.5 * self.log_variance_BCHW).exp() * noise_BCHW


def _level_channels(sizes: FluxSizes) -> list[int]:
    """Return the channels after each halving: they double until four times the first."""
    return [sizes.base_channels * 2 ** min(level, 2) for level in range(len(sizes.levels) - 1)]


class Compressor(nn.Module):
    """Computes the posterior of images: the first halving unshuffles pixels, others are strided.

    No layer but the first sees the full resolution, which would cost four times as much.
    """

    def __init__(self, sizes: FluxSizes) -> None:
        super().__init__()
        widths = _level_channels(sizes)
        layers: list[nn.Module] = [conv(4 * sizes.channels, widths[0])]
        for n_in, n_out in pairwise(widths):
            layers += [ResidualBlock(n_in, n_in), conv(n_in, n_out, stride=2)]
        last = widths[-1]
        layers += [ResidualBlock(last, last), ResidualBlock(last, last), group_norm(last)]
        self.trunk = nn.Sequential(*layers)
        self.head = conv(last, 2 * sizes.vae_dim, 1)

    def forward(self, images_BCHW: Tensor) -> Posterior:
        """Compute q(z|x) of images in [-1, 1]."""
        height, width = images_BCHW.shape[2:]
        # An odd side has one more row or column, a copy of its last.
        even_BCHW = functional.pad(images_BCHW, (0, width % 2, 0, height % 2), mode="replicate")
        hidden_BCHW = self.trunk(channels_last(functional.pixel_unshuffle(even_BCHW, 2)))
        heads_BCHW = self.head(functional.silu(hidden_BCHW)).float()
        mean_BCHW, log_variance_BCHW = heads_BCHW.chunk(2, dim=1)
        return Posterior(mean_BCHW, log_variance_BCHW.clamp(*_LOG_VARIANCE))


class SpadeNorm(nn.Module):
    """A norm whose scale and shift are convolved from a map: n(x) (1 + gamma) + beta.

    Both start at 0, so that a norm without the map gives the same at first.

    Source: Park et al. 2019 (https://arxiv.org/abs/1903.07291), equation 1.
    """

    def __init__(self, channels: int, n_map: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, affine=False)
        self.shared = conv(n_map, _SPADE_HIDDEN)
        self.modulation = zeroed(conv(_SPADE_HIDDEN, 2 * channels))

    def forward(self, x_BCHW: Tensor, map_BCHW: Tensor | None) -> Tensor:
        """Normalise; None is the plain norm."""
        normed_BCHW: Tensor = self.norm(x_BCHW)
        if map_BCHW is None:
            return normed_BCHW
        resized_BCHW = functional.interpolate(map_BCHW, size=x_BCHW.shape[2:], mode="nearest")
        hidden_BCHW = functional.relu(self.shared(resized_BCHW))
        gamma_BCHW, beta_BCHW = self.modulation(hidden_BCHW).chunk(2, dim=1)
        out_BCHW: Tensor = normed_BCHW * (1 + gamma_BCHW) + beta_BCHW
        return out_BCHW


class _PlainNorm(nn.Module):
    """The same norm for an expander that no step modulates."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, affine=False)

    def forward(self, x_BCHW: Tensor, map_BCHW: Tensor | None) -> Tensor:
        out: Tensor = self.norm(x_BCHW)
        return out


class _ExpanderBlock(nn.Module):
    """A residual block whose norms may be modulated."""

    def __init__(self, channels: int, sizes: FluxSizes) -> None:
        super().__init__()
        norms = [
            SpadeNorm(channels, sizes.vae_dim) if sizes.spade else _PlainNorm(channels)
            for _ in range(2)
        ]
        self.norm1, self.norm2 = norms
        self.conv1, self.conv2 = conv(channels, channels), conv(channels, channels)

    def forward(self, x_BCHW: Tensor, map_BCHW: Tensor | None) -> Tensor:
        h_BCHW = self.conv1(functional.silu(self.norm1(x_BCHW, map_BCHW)))
        out: Tensor = x_BCHW + self.conv2(functional.silu(self.norm2(h_BCHW, map_BCHW)))
        return out


class Expander(nn.Module):
    """Computes images in [-1, 1] of latent maps; each map may modulate the norms (SPADE)."""

    def __init__(self, sizes: FluxSizes) -> None:
        super().__init__()
        self.levels, self.has_spade = sizes.levels, sizes.spade
        widths = _level_channels(sizes)[::-1]
        self.stem = conv(sizes.vae_dim, widths[0])
        self.first = _ExpanderBlock(widths[0], sizes)
        self.blocks = nn.ModuleList(_ExpanderBlock(width, sizes) for width in widths)
        self.convs = nn.ModuleList(conv(n_in, n_out) for n_in, n_out in pairwise(widths))
        self.norm = group_norm(widths[-1])
        self.head = conv(widths[-1], 4 * sizes.channels)

    def forward(self, z_BCHW: Tensor, spade: bool | None = None) -> Tensor:
        """Decode; without `spade` the norms are plain. None: modulated if there are the layers."""
        modulated = self.has_spade if spade is None else spade
        z_BCHW = channels_last(z_BCHW)
        map_BCHW = z_BCHW if modulated else None
        h_BCHW = self.first(self.stem(z_BCHW), map_BCHW)
        h_BCHW = self.blocks[0](h_BCHW, map_BCHW)
        # From the latent's size to half the image's, which the last layer shuffles out.
        sizes = [*reversed(self.levels[1:-1])]
        for block, step, size in zip(self.blocks[1:], self.convs, sizes, strict=True):
            enlarged_BCHW = functional.interpolate(h_BCHW, size=size, mode="nearest")
            h_BCHW = block(step(enlarged_BCHW), map_BCHW)
        out_BCHW = self.head(functional.silu(self.norm(h_BCHW)))
        height, width = self.levels[0]
        shuffled_BCHW = functional.pixel_shuffle(out_BCHW, 2)[:, :, :height, :width]
        return torch.tanh(shuffled_BCHW.float())

    @property
    def last_weights(self) -> nn.Parameter:
        """The weights of the last layer, whose gradients tell how strong two losses are."""
        return cast(nn.Parameter, self.head.weight)
