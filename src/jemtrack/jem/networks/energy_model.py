"""The joint energy-based model: one network that is both a classifier and an unnormalised density.

With logits f(x): p(y|x) = softmax f(x), log p~(x) = logsumexp over y of f(x)[y], and the energy
is E(x) = -log p~(x) (Grathwohl et al. 2020, https://arxiv.org/abs/1912.03263, equations 4 to 6).

Letters: B batch, C channels in `BCHW` and classes in `logits_BC`, F features.
"""

import torch
from torch import Tensor, nn


class JointEnergyModel(nn.Module):
    """A classifier whose logits also define an unnormalised log density.

    Args:
        trunk: maps images (B, C, H, W) to features (B, `n_features`).
        n_features: number of features.
        n_classes: number of classes.
        uncond: take log p~(x) from the energy head instead of from the logits. The head's output
            is log p~(x) itself, not the energy: higher means more probable. Without `uncond`,
            the head exists too, so that the weights fit either way, but gets no gradient.
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
        """Compute the logits, as `logits` does."""
        return self.logits(images_BCHW)

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """Compute the logits, (B, classes), in fp32 even under autocast."""
        return self.logits_and_log_density(images_BCHW)[0]

    def log_density(self, images_BCHW: Tensor) -> Tensor:
        """Compute log p~(x), (B,): log p(x) up to a constant that all images share."""
        return self.logits_and_log_density(images_BCHW)[1]

    def logits_and_log_density(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits (B, classes) and log p~(x) (B,) in one forward pass of the trunk."""
        return self.heads(self.trunk(images_BCHW))

    def heads(self, features_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits (B, classes) and log p~(x) (B,) from the trunk's features."""
        logits_BC = _full_precision(self.class_head(features_BF))
        if self.uncond:
            return logits_BC, _full_precision(self.energy_head(features_BF)).squeeze(1)
        return logits_BC, logits_BC.logsumexp(1)


def _full_precision(outputs: Tensor) -> Tensor:
    """Convert bfloat16 to float32: a sum over classes or images would round differences away."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
