"""The text encoder: a small transformer that is trained from scratch with the flow.

Letters: B batch, D features, T tokens of a caption; the encoding has one token more.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jemtrack.flux.networks.layers import Attention, perceptron
from jemtrack.flux.networks.shape import MAX_TOKENS, PAD, UNKNOWN, FluxSizes

_LAYERS = 2


class Text(NamedTuple):
    """Encoded captions: a vector for each token, which of them count, and their mean."""

    tokens_BTD: Tensor
    mask_BT: Tensor
    mean_BD: Tensor


class _Layer(nn.Module):
    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(n_features), nn.LayerNorm(n_features)
        self.attention, self.layers = Attention(n_features), perceptron(n_features)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm1(x_BTD), mask_BK=mask_BT)
        out: Tensor = x_BTD + self.layers(self.norm2(x_BTD))
        return out


class TextEncoder(nn.Module):
    """Encodes captions, given as tokens of a vocabulary and padded with zeros.

    Before each caption is a learned vector, which is all that there is of an empty one.
    """

    def __init__(self, sizes: FluxSizes) -> None:
        super().__init__()
        n_features = sizes.text_embedding_dim
        n_tokens = len(sizes.vocabulary) + 1 + max(PAD, UNKNOWN)
        self.words = nn.Embedding(n_tokens, n_features)
        self.start = nn.Parameter(torch.randn(n_features))
        self.places = nn.Parameter(0.02 * torch.randn(MAX_TOKENS + 1, n_features))
        self.layers = nn.ModuleList(_Layer(n_features) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(n_features)

    def forward(self, tokens_BT: Tensor) -> Text:
        """Encode captions of at most 16 tokens; what is padding changes nothing."""
        start_B1D = self.start.expand(len(tokens_BT), 1, -1)
        x_BTD = torch.cat([start_B1D, self.words(tokens_BT)], dim=1)
        x_BTD = x_BTD + self.places[: x_BTD.shape[1]]
        mask_BT = nn.functional.pad(tokens_BT != PAD, (1, 0), value=True)
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_BT)
        x_BTD = self.norm(x_BTD)
        counted_BT1 = mask_BT[..., None].to(x_BTD.dtype)
        mean_BD = (x_BTD * counted_BT1).sum(dim=1) / counted_BT1.sum(dim=1)
        return Text(x_BTD, mask_BT, mean_BD)
