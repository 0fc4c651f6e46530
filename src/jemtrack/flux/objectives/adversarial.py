"""Adversarial losses: hinge, the R1 penalty, and the weight of the generator's.

Letters: B batch, C channels, H height, W width.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from jemtrack.parameters import AtLeastOne, Count, NotNegative, parameters
from jemtrack.train.distributed import all_reduce_mean

Discriminator = Callable[[Tensor], Tensor]
Mean = Callable[[Tensor], Tensor]  # over values (B, ...); that of a batch is over all its shards

_SMALL, _MOST = 1e-4, 1e4  # keep the adaptive weight finite


def discriminator_hinge(real: Tensor, fake: Tensor, mean: Mean = torch.mean) -> Tensor:
    """Compute max(0, 1 - D(x)) + max(0, 1 + D(y)), each patch by itself, averaged by `mean`.

    Source: Lim & Ye 2017 (https://arxiv.org/abs/1705.02894), equation 10.
    """
    return mean(relu(1 - real)) + mean(relu(1 + fake))


def generator_hinge(fake: Tensor, mean: Mean = torch.mean) -> Tensor:
    """Compute -D(y), averaged over the patches by `mean`."""
    return -mean(fake)


@parameters
class GradientPenalty:
    """R1: gamma / 2 |grad D(x)|^2 at real images, every `interval` batches and as many times.

    D is the mean of a patch's logits. The gradient is computed in float32.

    Source: Mescheder et al. 2018 (https://arxiv.org/abs/1801.04406), equation 9; lazily as Karras
    et al. 2020 (https://arxiv.org/abs/1912.04958), section 3.1.
    """

    gamma: NotNegative = 5.0
    interval: AtLeastOne = 16

    def due(self, step: int) -> bool:
        """Return whether the batch after `step` others is penalised."""
        return self.gamma > 0 and step % self.interval == 0

    def __call__(
        self, discriminator: Discriminator, images_BCHW: Tensor, mean: Mean = torch.mean
    ) -> Tensor:
        """Compute the penalty of a batch that is due."""
        with torch.autocast(images_BCHW.device.type, enabled=False):
            # A leaf of its own: the batch's tensor serves others, who want no gradient of it.
            leaf_BCHW = images_BCHW.detach().float().requires_grad_()
            score = discriminator(leaf_BCHW).flatten(1).mean(dim=1).sum()
            (slope_BCHW,) = torch.autograd.grad(score, leaf_BCHW, create_graph=True)
            squares_B1 = slope_BCHW.flatten(1).square().sum(dim=1, keepdim=True)
            return mean(squares_B1) * (self.interval * self.gamma / 2)


@parameters
class AdversarialWeight:
    """The weight of the generator's loss beside the reconstruction's.

    Source: Esser et al. 2021 (https://arxiv.org/abs/2012.09841), equation 7.

    Attributes:
        scale: the weight if it is fixed; else times the ratio of both gradients' norms at the
            expander's last layer.
        kind: adaptive or fixed.
        warmup_steps: in which the discriminator trains alone: a head start.
    """

    scale: NotNegative = 0.5
    kind: Literal["adaptive", "fixed"] = "adaptive"
    warmup_steps: Count = 0

    def __call__(
        self, step: int, reconstruction: Tensor | None, adversarial: Tensor, last: nn.Parameter
    ) -> Tensor | float:
        """Return the weight for the batch after `step` others; without gradient."""
        if step < self.warmup_steps:
            return 0.0
        # Without a reconstruction, or with a frozen layer, there is nothing to be held against.
        if self.kind == "fixed" or reconstruction is None or not last.requires_grad:
            return self.scale
        wanted, found = (_norm(loss, last) for loss in (reconstruction, adversarial))
        return self.scale * (wanted / (found + _SMALL)).clamp(max=_MOST)


def _norm(loss: Tensor, weight: nn.Parameter) -> Tensor:
    """Return the norm of the whole batch's gradient at one weight."""
    (slope,) = torch.autograd.grad(loss, weight, retain_graph=True)
    norm: Tensor = all_reduce_mean(slope).norm()
    return norm
