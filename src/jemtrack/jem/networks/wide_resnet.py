"""Wide residual networks as joint energy models use them: leaky ReLU, and no norm by default.

Sources: Zagoruyko & Komodakis 2016 (https://arxiv.org/abs/1605.07146) for the family,
Grathwohl et al. 2020 (https://arxiv.org/abs/1912.03263) for the changes.

Letters: B batch, C channels, H height, W width, F features.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from jemtrack.jem.networks.norms import make_norm
from jemtrack.jem.networks.shape import WideResNetShape

NEGATIVE_SLOPE = 0.2
STEM_CHANNELS = 16
GROUP_STRIDES = (1, 2, 2)


class WideResNetTrunk(nn.Module):
    """Images (B, channels, H, W) to features (B, `n_features`)."""

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
        """Give the features, averaged over the image's area."""
        # Channels last, all the way: what the convolutions of CPUs and GPUs are fastest with. The
        # weights stay as they are, and so do files, checkpoints and optimizers. It is a copy: the
        # strides of images of one channel fit both formats, and PyTorch takes them for the other.
        images_BCHW = images_BCHW.clone(memory_format=torch.channels_last)
        features_BCHW = self.norm(self.blocks(self.stem(images_BCHW)))
        return leaky_relu(features_BCHW, NEGATIVE_SLOPE).mean((2, 3))


class WideBlock(nn.Module):
    """Two convolutions, each after its norm and leaky ReLU, beside a shortcut.

    The second convolution carries the stride. The shortcut is the input itself, or a 1x1
    convolution of it where the shape changes.
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
        """Give the sum of the shortcut and of what the convolutions add to it."""
        hidden_BCHW = leaky_relu(self.norm1(input_BCHW), NEGATIVE_SLOPE)
        hidden_BCHW = self.norm2(self.dropout(self.conv1(hidden_BCHW)))
        # In place is safe here and only here: no layer before it needs its own output for the
        # backward pass, while the first activation may be the input that the shortcut reads.
        hidden_BCHW = leaky_relu(hidden_BCHW, NEGATIVE_SLOPE, inplace=True)
        output_BCHW: Tensor = self.shortcut(input_BCHW) + self.conv2(hidden_BCHW)
        return output_BCHW


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
