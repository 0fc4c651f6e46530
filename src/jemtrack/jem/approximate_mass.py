"""Approximate mass: how flat the density is where an image stands.

Grathwohl et al. 2020 (https://arxiv.org/abs/1912.03263), section 5.3: an image may be dense and
yet have little probability around it, as the density falls off steeply on all sides. The score
is -||d log p~(x) / dx||, the Euclidean norm over all pixels; it is 0 at a flat mode, and higher
is more alike to the training images.

Letters: N images, B batch, C channels in `BCHW` and classes in `logits_NC`, F features.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from jemtrack.errors import InputError
from jemtrack.jem.energy_model import JointEnergyModel
from jemtrack.jem.evaluation_mode import evaluation_mode


class DensityAndSlope(NamedTuple):
    """Logits (N, C), log p~(x) and approximate mass (N,), and features (N, F), on the CPU."""

    logits_NC: Tensor
    log_density_N: Tensor
    approximate_mass_N: Tensor
    features_NF: Tensor


def density_and_slope(model: JointEnergyModel, batches: Iterable[Tensor]) -> DensityAndSlope:
    """Measure batches of images (B, C, H, W) as the model sees them: scaled, with its noise.

    One forward and one backward pass a batch gives all of it; what a batch needs is freed before
    the next. The model measures in evaluation mode, without which an image's density would
    depend on its batch; afterwards it is in the mode it was in, and its weights have no gradient
    of this.

    Raises:
        InputError: when there is no batch.
    """
    device = next(model.parameters()).device
    with evaluation_mode(model):
        parts = [_measured(model, images_BCHW.to(device)) for images_BCHW in batches]
    if not parts:
        raise InputError("there are no images to measure")
    return DensityAndSlope(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.inference_mode(False)
@torch.enable_grad()
def _measured(model: JointEnergyModel, images_BCHW: Tensor) -> DensityAndSlope:
    images_BCHW = images_BCHW.detach().clone().requires_grad_()
    features_BF = model.trunk(images_BCHW)
    logits_BC, log_density_B = model.heads(features_BF)
    # In evaluation mode no image touches another's density: the sum's gradient is each one's own.
    (slope_BCHW,) = torch.autograd.grad(log_density_B.sum(), [images_BCHW])
    mass_B = -slope_BCHW.double().flatten(1).norm(dim=1)
    said = logits_BC, log_density_B, mass_B, features_BF
    return DensityAndSlope(*(each.detach().cpu() for each in said))
