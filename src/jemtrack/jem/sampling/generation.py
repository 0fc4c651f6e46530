"""Draw samples of each class with Langevin chains, and lay them out as one image.

Letters: N images, C channels or classes, H height, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.shared.evaluation_mode import evaluation_mode
from jemtrack.shared.pictures import as_pixels
from jemtrack.shared.random_streams import generator

N_RECORDED = 20  # steps at which the energy of the chains is recorded


@dataclass(frozen=True)
class Samples:
    """The ends of Langevin chains, and their energies on the way.

    Attributes:
        images_NCHW: in the model's range, [-1, 1], which chains may leave.
        energies: a row for each recorded `step`, with the median of the `energy` -log p~(x, y)
            over the chains, and its lower and upper quartiles, `low` and `high`.
    """

    images_NCHW: Tensor
    energies: pd.DataFrame

    def pixels(self) -> Tensor:
        """Return the images as uint8 (N, C, H, W), on the CPU."""
        return as_pixels(self.images_NCHW)


def joint_log_density(model: JointEnergyModel, labels_N: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function x -> log p~(x, y), (N, C, H, W) to (N,), with a class y per image.

    log p~(x, y) = log p~(x) + log p(y|x), which is the logit of y unless the model is `uncond`.
    """

    def log_density(images_NCHW: Tensor) -> Tensor:
        logits_NC, log_density_N = model.logits_and_log_density(images_NCHW)
        log_class_N = logits_NC.log_softmax(dim=1).gather(1, labels_N[:, None]).squeeze(1)
        return log_density_N + log_class_N

    return log_density


def class_samples(
    model: JointEnergyModel,
    sampler: LangevinSampler,
    labels_N: Tensor,
    start_NCHW: Tensor,
    seed: int,
) -> Samples:
    """Run a chain on log p~(x, y) for each of the classes `labels_N`, starting at `start_NCHW`.

    `seed` determines the noise. The model's mode is restored afterwards.

    Source: Grathwohl et al. 2020 (https://arxiv.org/abs/1912.03263), section 5.1.
    """
    device = next(model.parameters()).device
    stream = generator(seed, "class samples", device=device)
    density = joint_log_density(model, labels_N.to(device))
    images_NCHW, rows, done = start_NCHW.to(device), [], 0
    with evaluation_mode(model):
        rows.append(_energies(density, images_NCHW, 0))
        # Run the chains piecewise, up to the next recorded step, on one stream of noise.
        for last in _recorded_steps(sampler.n_steps):
            images_NCHW = replace(sampler, n_steps=last - done)(density, images_NCHW, stream)
            rows.append(_energies(density, images_NCHW, done := last))
    return Samples(images_NCHW.cpu(), pd.DataFrame(rows))


def _recorded_steps(n_steps: int) -> list[int]:
    return sorted({round(n_steps * part / N_RECORDED) for part in range(1, N_RECORDED + 1)} - {0})


@torch.inference_mode()
def _energies(
    density: Callable[[Tensor], Tensor], images_NCHW: Tensor, step: int
) -> dict[str, float]:
    energy_N = -density(images_NCHW).double()
    low, middle, high = energy_N.quantile(energy_N.new_tensor([0.25, 0.5, 0.75])).tolist()
    return {"step": step, "energy": middle, "low": low, "high": high}
