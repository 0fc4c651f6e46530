"""The wide residual network without optimisation: contiguous tensors in fp32.

Its parts have the names of `jemtrack.jem.networks.wide_resnet`, so that both can load the same
weights.
"""

from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2


class Block(nn.Module):
    """A residual block: twice leaky ReLU and convolution, plus a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the sum of both paths."""
        hidden = self.conv1(functional.leaky_relu(x, SLOPE))
        hidden = self.conv2(functional.leaky_relu(hidden, SLOPE))
        return self.shortcut(x) + hidden


class Trunk(nn.Module):
    """Map images to features."""

    def __init__(self, depth: int, width: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1)
        blocks, before = [], 16
        for n_channels, first_stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for number in range((depth - 4) // 6):
                blocks.append(Block(before, n_channels, first_stride if number == 0 else 1))
                before = n_channels
        self.blocks = nn.Sequential(*blocks)
        self.n_features = before

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features, averaged over height and width."""
        x = functional.leaky_relu(self.blocks(self.stem(x)), SLOPE)
        return functional.avg_pool2d(x, x.shape[-1]).flatten(1)


class Classifier(nn.Module):
    """Map images to logits, whose log-sum-exp is log p~(x)."""

    def __init__(self, depth: int, width: int, channels: int, n_classes: int) -> None:
        super().__init__()
        self.trunk = Trunk(depth, width, channels)
        self.class_head = nn.Linear(self.trunk.n_features, n_classes)
        self.energy_head = nn.Linear(self.trunk.n_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute log p~(x) of each image."""
        return self.classify(x).logsumexp(1)

    def classify(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        return self.class_head(self.trunk(x))
