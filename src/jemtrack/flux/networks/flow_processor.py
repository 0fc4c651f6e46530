"""The flow processor: the velocity of the latent at a time, given a caption.

Time runs from 0, noise, to 1, data. Letters: B batch, C channels, D features, H height, N times (a
time, and a span if there is one), T tokens, W width.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from jemtrack.flux.networks.layers import (
    Attention,
    ResidualBlock,
    TimeEmbedding,
    conv,
    group_norm,
    perceptron,
    zeroed,
)
from jemtrack.flux.networks.shape import FluxSizes
from jemtrack.flux.networks.text_encoder import Text

_DIT_LAYERS = 4
_LEAST_STD = 1e-3


class LatentScale(nn.Module):
    """The mean and standard deviation of each channel of the latents, measured once.

    The flow works on standardised latents: its noise is then of their size, whatever the
    compressor's scale is.
    """

    mean_C: Tensor
    std_C: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean_C", torch.zeros(channels))
        self.register_buffer("std_C", torch.ones(channels))

    @torch.no_grad()
    def measure(self, z_BCHW: Tensor) -> None:
        """Take mean and standard deviation from a batch of latents."""
        self.mean_C.copy_(z_BCHW.mean(dim=(0, 2, 3)))
        self.std_C.copy_(z_BCHW.std(dim=(0, 2, 3)).clamp_min(_LEAST_STD))

    def standardise(self, z_BCHW: Tensor) -> Tensor:
        """Map latents to mean 0 and standard deviation 1."""
        return (z_BCHW - self.mean_C[:, None, None]) / self.std_C[:, None, None]

    def restore(self, z_BCHW: Tensor) -> Tensor:
        """Undo `standardise`."""
        return z_BCHW * self.std_C[:, None, None] + self.mean_C[:, None, None]


class _UNet(nn.Module):
    """Two resolutions; time and the mean of the caption scale and shift (FiLM)."""

    def __init__(self, sizes: FluxSizes) -> None:
        super().__init__()
        near, far, n_features = (n * sizes.feature_maps_dim for n in (1, 2, 4))
        self.time = TimeEmbedding(n_features, 2 if sizes.mean_flow else 1)
        self.text = nn.Linear(sizes.text_embedding_dim, n_features)
        self.stem = conv(sizes.vae_dim, near)
        self.down = ResidualBlock(near, near, n_features)
        self.halve = conv(near, far, stride=2)
        self.middle = nn.ModuleList(ResidualBlock(far, far, n_features) for _ in range(2))
        self.enlarge = conv(far, near)
        self.up = ResidualBlock(2 * near, near, n_features)
        self.norm = group_norm(near)
        self.head = zeroed(conv(near, sizes.vae_dim))

    def forward(self, z_BCHW: Tensor, times_BN: Tensor, text: Text) -> Tensor:
        condition_BD = functional.silu(self.time(times_BN) + self.text(text.mean_BD))
        near_BCHW = self.down(self.stem(z_BCHW), condition_BD)
        h_BCHW = self.halve(near_BCHW)
        for block in self.middle:
            h_BCHW = block(h_BCHW, condition_BD)
        # To the size from which it was halved: 7 becomes 4 and 7 again.
        h_BCHW = functional.interpolate(h_BCHW, size=z_BCHW.shape[2:], mode="nearest")
        joined_BCHW = torch.cat([near_BCHW, self.enlarge(h_BCHW)], dim=1)
        h_BCHW = self.up(joined_BCHW, condition_BD)
        return cast(Tensor, self.head(functional.silu(self.norm(h_BCHW))))


class _DiTBlock(nn.Module):
    """Attention among pixels, to the caption's tokens, and a perceptron, gated by a condition."""

    def __init__(self, n_features: int, n_text: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_features, elementwise_affine=False)
        self.attention = Attention(n_features)
        self.to_text = Attention(n_features, n_text)
        self.layers = perceptron(n_features)
        self.modulation = zeroed(nn.Linear(n_features, 9 * n_features))

    def forward(self, x_BTD: Tensor, condition_BD: Tensor, text: Text) -> Tensor:
        parts = self.modulation(condition_BD)[:, None].chunk(9, dim=2)

        def modulated(number: int) -> Tensor:
            scale_B1D, shift_B1D = parts[3 * number : 3 * number + 2]
            out_BTD: Tensor = self.norm(x_BTD) * (1 + scale_B1D) + shift_B1D
            return out_BTD

        x_BTD = x_BTD + parts[2] * self.attention(modulated(0))
        x_BTD = x_BTD + parts[5] * self.to_text(modulated(1), text.tokens_BTD, text.mask_BT)
        out_BTD: Tensor = x_BTD + parts[8] * self.layers(modulated(2))
        return out_BTD


class _DiT(nn.Module):
    """A transformer over the latent's pixels whose blocks start as the identity (adaLN-zero).

    Source: Peebles & Xie 2023 (https://arxiv.org/abs/2212.09748), section 3.2.
    """

    def __init__(self, sizes: FluxSizes) -> None:
        super().__init__()
        n_features, (channels, height, width) = sizes.feature_maps_dim, sizes.latent_shape
        self.time = TimeEmbedding(n_features, 2 if sizes.mean_flow else 1)
        self.text = nn.Linear(sizes.text_embedding_dim, n_features)
        self.stem = nn.Linear(channels, n_features)
        self.places = nn.Parameter(0.02 * torch.randn(height * width, n_features))
        self.blocks = nn.ModuleList(
            _DiTBlock(n_features, sizes.text_embedding_dim) for _ in range(_DIT_LAYERS)
        )
        self.norm = nn.LayerNorm(n_features)
        self.head = zeroed(nn.Linear(n_features, channels))

    def forward(self, z_BCHW: Tensor, times_BN: Tensor, text: Text) -> Tensor:
        condition_BD = functional.silu(self.time(times_BN) + self.text(text.mean_BD))
        x_BTD = self.stem(z_BCHW.flatten(2).transpose(1, 2)) + self.places
        for block in self.blocks:
            x_BTD = block(x_BTD, condition_BD, text)
        velocity_BTC = self.head(self.norm(x_BTD))
        return cast(Tensor, velocity_BTC.transpose(1, 2).unflatten(2, z_BCHW.shape[2:]))


class FlowProcessor(nn.Module):
    """Computes the velocity of standardised latents: by a U-Net if they are small, or a DiT.

    With `sizes.mean_flow` it is the mean velocity over a span of time from there on.
    """

    def __init__(self, sizes: FluxSizes) -> None:
        super().__init__()
        self.latent_shape, self.has_span = sizes.latent_shape, sizes.mean_flow
        self.scale = LatentScale(sizes.vae_dim)
        self.network = _UNet(sizes) if sizes.has_u_net else _DiT(sizes)

    def forward(
        self, z_BCHW: Tensor, time_B: Tensor, text: Text, span_B: Tensor | None = None
    ) -> Tensor:
        """Compute the velocity of the latents at their times, in float32 even under autocast.

        Without spans, these are 0: it is that of the moment.
        """
        times = [time_B]
        if self.has_span:
            times.append(torch.zeros_like(time_B) if span_B is None else span_B)
        return cast(Tensor, self.network(z_BCHW, torch.stack(times, dim=1), text)).float()
