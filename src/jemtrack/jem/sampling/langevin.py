"""Langevin dynamics in pixel space: sample from p(x) by following the gradient of log p~(x).

Letters: B batch, C channels, H height, W width.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.parameters import parameters
from jemtrack.shared.evaluation_mode import evaluation_mode
from jemtrack.shared.random_streams import generator


def _all_chains(chains_BCHW: Tensor) -> Tensor:
    return chains_BCHW


@parameters
class LangevinSampler:
    """A Langevin chain: gradient ascent on the log density with noise.

    x <- x + `step_size` * grad log p~(x) + `noise_std` * noise, `n_steps` times. As in JEM, the
    step size and the noise are independent. They do not satisfy noise^2 = 2 * step, for which the
    stationary distribution of a chain with small steps would be p~.

    Attributes:
        n_steps: length of a chain.
        step_size: factor of the gradient.
        noise_std: standard deviation of the noise, in units of pixels in [-1, 1].
        score_clamp: bound on the absolute value of the gradient in every pixel; None: no bound.
        pixel_clamp: clip the chain to [-1, 1] after every step.

    Source: Grathwohl et al. 2020 (https://arxiv.org/abs/1912.03263), equation 3 and section 5.
    """

    n_steps: Annotated[int, Field(ge=0)] = 20
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    noise_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    score_clamp: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    pixel_clamp: bool = False

    def __call__(
        self,
        log_density: Callable[[Tensor], Tensor],
        start_BCHW: Tensor,
        generator: torch.Generator,
        shard: Callable[[Tensor], Tensor] = _all_chains,
    ) -> Tensor:
        """Run the chains that start at `start_BCHW`; return their ends, (B, C, H, W), detached.

        `log_density` maps (B, C, H, W) to (B,). The model behind it keeps its mode, and its
        parameters get no gradients. `generator` must be on the device of `start_BCHW`, which is
        not changed. `shard` selects the chains to run here; the noise of a chain does not depend
        on which others are selected.
        """
        samples_BCHW = shard(start_BCHW).detach().clone()
        for _ in range(self.n_steps):
            # The score. The log density of an image depends on that image alone, so the gradient
            # of the sum over images contains the gradient of each.
            with torch.enable_grad():
                position_BCHW = samples_BCHW.detach().requires_grad_()
                total = log_density(position_BCHW).sum()
            (score_BCHW,) = torch.autograd.grad(total, [position_BCHW])
            if self.score_clamp is not None:
                score_BCHW = score_BCHW.clamp(-self.score_clamp, self.score_clamp)
            # The step.
            samples_BCHW.add_(score_BCHW, alpha=self.step_size)
            if self.noise_std:
                noise_BCHW = shard(_noise_like(start_BCHW, generator))
                samples_BCHW.add_(noise_BCHW, alpha=self.noise_std)
            if self.pixel_clamp:
                samples_BCHW.clamp_(-1, 1)
        return samples_BCHW


def _noise_like(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    # Not `randn_like`: the numbers must not depend on the memory format of the images.
    return torch.randn(
        images_BCHW.shape, generator=generator, device=images_BCHW.device, dtype=images_BCHW.dtype
    )


N_CHAINS = 64


def chain_log_density(
    model: JointEnergyModel, sampler: LangevinSampler, image_shape: torch.Size, seed: int
) -> float:
    """Compute the mean log p~ at the ends of 64 chains that start uniformly in [-1, 1].

    `image_shape` is (C, H, W). If p~ describes the images, the result is close to the mean log p~
    of the images. For a mere classifier it is far higher: the chains find noise to which the model
    assigns a higher density than to any image. The model's mode is restored afterwards.
    """
    device = next(model.parameters()).device
    stream = generator(seed, "chains", device=device)
    start_BCHW = torch.rand(N_CHAINS, *image_shape, generator=stream, device=device) * 2 - 1
    with evaluation_mode(model):
        samples_BCHW = sampler(model.log_density, start_BCHW, stream)
        with torch.inference_mode():
            mean: float = model.log_density(samples_BCHW).double().mean().item()
    return mean
