"""Wide residual networks for JEMs: leaky ReLU, and no normalisation by default.

Sources: Zagoruyko & Komodakis 2016 (https://arxiv.org/abs/1605.07146) for the family,
Grathwohl et al. 2020 (https://arxiv.org/abs/1912.03263) for the changes.

Letters: B batch, C channels, H height, W width, F features.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.norms import make_norm
from jemtrack.jem.networks.shape import STEM_CHANNELS, WideResNetShape

NEGATIVE_SLOPE = 0.2
GROUP_STRIDES = (1, 2, 2)


def build_model(shape: WideResNetShape) -> JointEnergyModel:
    """Build the network for images of 8x8 to 32x32; the global generator draws its weights."""
    trunk = WideResNetTrunk(shape)
    return JointEnergyModel(trunk, trunk.n_features, shape.n_classes, shape.uncond)


class WideResNetTrunk(nn.Module):
    """Map images (B, channels, H, W) to features (B, `n_features`)."""

    def __init__(self, shape: WideResNetShape) -> None:
        super().__init__()
        self.stem = _conv3x3(shape.channels, STEM_CHANNELS)
        n_blocks = (shape.depth - 4) // 6
        blocks: list[nn.Module] = []
        in_channels = STEM_CHANNELS
        for group, first_stride in enumerate(GROUP_STRIDES):
            out_channels = STEM_CHANNELS * shape.width * 2**group
            for stride in [first_stride] + [1] * (n_blocks - 1):
                blocks.append(WideBlock(in_channels, out_channels, stride, shape))
                in_channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.norm = make_norm(shape.norm, in_channels)
        self.n_features = in_channels

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Compute the features, averaged over height and width, (B, F)."""
        # Convolutions are fastest in the channels-last memory format, on CPUs and GPUs. Only the
        # images are converted, so weights, files and optimizers are unaffected. `clone`, because
        # the strides of one-channel images fit both formats, and PyTorch would take them for
        # contiguous.
        images_BCHW = images_BCHW.clone(memory_format=torch.channels_last)
        features_BCHW = self.norm(self.blocks(self.stem(images_BCHW)))
        return leaky_relu(features_BCHW, NEGATIVE_SLOPE).mean((2, 3))


class WideBlock(nn.Module):
    """A residual block: twice norm, leaky ReLU and 3x3 convolution, plus a shortcut.

    The second convolution has the stride. The shortcut is the identity, or a 1x1 convolution if
    the shape changes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shape: WideResNetShape
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(shape.norm, in_channels)
        self.conv1 = _conv3x3(in_channels, out_channels)
        self.dropout = nn.Dropout(shape.dropout_rate)
        self.norm2 = make_norm(shape.norm, out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels, stride)
        keeps_shape = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity() if keeps_shape else nn.Conv2d(in_channels, out_channels, 1, stride)
        )

    def forward(self, input_BCHW: Tensor) -> Tensor:
        """Compute the sum of the shortcut and the convolutions."""
        hidden_BCHW = leaky_relu(self.norm1(input_BCHW), NEGATIVE_SLOPE)
        hidden_BCHW = self.norm2(self.dropout(self.conv1(hidden_BCHW)))
        # In place is safe only here: no layer before it needs its own output for the backward
        # pass. The input of the first activation may be what the shortcut reads.
        hidden_BCHW = leaky_relu(hidden_BCHW, NEGATIVE_SLOPE, inplace=True)
        output_BCHW: Tensor = self.shortcut(input_BCHW) + self.conv2(hidden_BCHW)
        return output_BCHW


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
