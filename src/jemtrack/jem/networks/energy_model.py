"""The joint energy model: one trunk that classifies and gives a density.

With logits f(x): p(y|x) = softmax f(x), log p~(x) = logsumexp over y of f(x)[y], and the energy
is E(x) = -log p~(x) (Grathwohl et al. 2020, https://arxiv.org/abs/1912.03263, equations 4 to 6).

Letters: B batch, C channels in `BCHW` and classes in `logits_BC`, F features.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Have norms and dropout evaluate in the block, and each as it was after it.

    Modules that were in evaluation mode alone, such as a frozen norm's, stay in it.
    """
    trained = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True


class JointEnergyModel(nn.Module):
    """A classifier whose logits also are an unnormalised log density.

    Args:
        trunk: images to features, (B, C, H, W) to (B, `n_features`).
        n_features: what the trunk gives.
        n_classes: outputs of the class head.
        uncond: take log p~(x) from the energy head instead of from the logits. The head's output
            is log p~(x) itself, not the energy: higher means more probable. Without `uncond`
            the head is there (so that the weights fit either way) but gets no gradient.
    """

    def __init__(
        self, trunk: nn.Module, n_features: int, n_classes: int, uncond: bool = False
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.class_head = nn.Linear(n_features, n_classes)
        self.energy_head = nn.Linear(n_features, 1)
        self.uncond = uncond

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Give the logits, (B, classes)."""
        return self.logits(images_BCHW)

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """Give the logits, (B, classes)."""
        return self.logits_and_log_density(images_BCHW)[0]

    def log_density(self, images_BCHW: Tensor) -> Tensor:
        """Give log p~(x), (B,), up to a constant that all images share."""
        return self.logits_and_log_density(images_BCHW)[1]

    def logits_and_log_density(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Give the logits and log p~(x) from one forward pass of the trunk."""
        return self.heads(self.trunk(images_BCHW))

    def heads(self, features_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Give the logits and log p~(x) of what the trunk gave."""
        logits_BC = _full_precision(self.class_head(features_BF))
        if self.uncond:
            return logits_BC, _full_precision(self.energy_head(features_BF)).squeeze(1)
        return logits_BC, logits_BC.logsumexp(1)


def _full_precision(outputs: Tensor) -> Tensor:
    """Leave bfloat16, in which a sum over classes or images loses what sets them apart."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
