"""Layers that several networks share.

Letters: B batch, C channels, D features, H height, K keys, N times, Q queries, T tokens, W width.
All norms are group norms: they have no running state, so a frozen network needs no other mode,
and several processes need not share statistics.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_GROUPS = 8
_HEAD = 32  # features of an attention head
_FREQUENCIES = 32


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Make a group norm of 8 groups, or of as many as divide the channels."""
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels, affine=affine)


def conv(n_in: int, n_out: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Make a convolution that keeps height and width, or halves them and rounds up."""
    return nn.Conv2d(n_in, n_out, size, stride, padding=size // 2)


def channels_last(x_BCHW: Tensor) -> Tensor:
    """Copy what a network gets into the memory format in which its convolutions are fastest.

    Weights keep theirs, so that files and optimizers are unaffected. It copies always, because the
    strides of one channel fit both formats, and PyTorch would take them for the other.
    """
    return x_BCHW.clone(memory_format=torch.channels_last)


def zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Set a layer's weights to 0, so that what it adds is nothing at first."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip, each after a norm; a condition may modulate the second."""

    def __init__(self, n_in: int, n_out: int, n_condition: int = 0) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(n_in), group_norm(n_out, affine=not n_condition)
        self.conv1, self.conv2 = conv(n_in, n_out), conv(n_out, n_out)
        self.skip = conv(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.film = zeroed(nn.Linear(n_condition, 2 * n_out)) if n_condition else None

    def forward(self, x_BCHW: Tensor, condition_BD: Tensor | None = None) -> Tensor:
        """Apply the block; the condition scales and shifts the second norm (FiLM)."""
        h_BCHW = self.norm2(self.conv1(functional.silu(self.norm1(x_BCHW))))
        if self.film is not None:
            scale_BC, shift_BC = self.film(condition_BD).chunk(2, dim=1)
            h_BCHW = h_BCHW * (1 + scale_BC[..., None, None]) + shift_BC[..., None, None]
        out: Tensor = self.skip(x_BCHW) + self.conv2(functional.silu(h_BCHW))
        return out


class Attention(nn.Module):
    """Attention of queries to a context, which is the queries themselves unless it is given."""

    def __init__(self, n_features: int, n_context: int | None = None) -> None:
        super().__init__()
        self.n_heads = next(n for n in range(max(n_features // _HEAD, 1), 0, -1)
                            if n_features % n == 0)  # fmt: skip
        self.to_q = nn.Linear(n_features, n_features)
        self.to_kv = nn.Linear(n_context or n_features, 2 * n_features)
        self.out = nn.Linear(n_features, n_features)

    def forward(
        self, x_BQD: Tensor, context_BKD: Tensor | None = None, mask_BK: Tensor | None = None
    ) -> Tensor:
        """Attend; keys where `mask_BK` is false count for nothing."""
        context_BKD = x_BQD if context_BKD is None else context_BKD
        k_BKD, v_BKD = self.to_kv(context_BKD).chunk(2, dim=2)
        q, k, v = (
            each.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for each in (self.to_q(x_BQD), k_BKD, v_BKD)
        )
        mask = None if mask_BK is None else mask_BK[:, None, None]
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out


def perceptron(n_features: int) -> nn.Sequential:
    """Make the two layers that follow an attention."""
    return nn.Sequential(
        nn.Linear(n_features, 4 * n_features), nn.GELU(), nn.Linear(4 * n_features, n_features)
    )


class TimeEmbedding(nn.Module):
    """Embeds `n` times in [0, 1] by sines and cosines of 32 frequencies, and two layers.

    One time has waves from half a turn to 500 turns over the unit interval. Of two, a time and a
    span, the network is differentiated: the derivative of such waves would drown all else, and
    there are five turns at most.
    """

    def __init__(self, n_features: int, n: int = 1) -> None:
        super().__init__()
        self.fastest = 1000 if n == 1 else 10  # half turns
        self.layers = nn.Sequential(
            nn.Linear(2 * n * _FREQUENCIES, n_features),
            nn.SiLU(),
            nn.Linear(n_features, n_features),
        )

    def forward(self, times_BN: Tensor) -> Tensor:
        """Compute the embedding, (B, D)."""
        powers = torch.linspace(0, 1, _FREQUENCIES, device=times_BN.device)  # as many to an octave
        angles = times_BN[..., None] * math.pi * self.fastest**powers
        waves = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)
        out: Tensor = self.layers(waves)
        return out
