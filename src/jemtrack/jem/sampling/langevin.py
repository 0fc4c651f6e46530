"""Langevin dynamics in pixel space.

Letters: B batch, C channels, H height, W width.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from jemtrack.jem.networks.energy_model import JointEnergyModel, evaluation_mode
from jemtrack.parameters import parameters
from jemtrack.train.random_streams import generator


def _all(chains_BCHW: Tensor) -> Tensor:
    return chains_BCHW


@parameters
class LangevinSampler:
    """A chain that climbs the log density with a little noise.

    x <- x + `step_size` * grad log p~(x) + `noise_std` * noise, `n_steps` times. The step and the
    noise are chosen apart, as JEM does, and not by the rule noise^2 = 2 * step under which the
    chain would have p~ as its stationary law. `score_clamp` bounds the gradient in every pixel,
    `pixel_clamp` keeps the chain within [-1, 1].

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
        share: Callable[[Tensor], Tensor] = _all,
    ) -> Tensor:
        """Give where the chains that begin at `start_BCHW` (left as it is) end, detached.

        `log_density` maps (B, C, H, W) to (B,); the model behind it keeps its mode and gets no
        gradients. `generator` lives on the device of `start_BCHW`. Of all chains this runs those
        that `share` takes, with the noise that they have whoever runs the others.
        """
        samples_BCHW = share(start_BCHW).detach().clone()
        for _ in range(self.n_steps):
            # The score: an image's log density depends on that image alone, so the gradient of
            # the sum holds each image's own.
            with torch.enable_grad():
                position_BCHW = samples_BCHW.detach().requires_grad_()
                total = log_density(position_BCHW).sum()
            (score_BCHW,) = torch.autograd.grad(total, [position_BCHW])
            if self.score_clamp is not None:
                score_BCHW = score_BCHW.clamp(-self.score_clamp, self.score_clamp)
            # The step.
            samples_BCHW.add_(score_BCHW, alpha=self.step_size)
            if self.noise_std:
                noise_BCHW = share(_noise_like(start_BCHW, generator))
                samples_BCHW.add_(noise_BCHW, alpha=self.noise_std)
            if self.pixel_clamp:
                samples_BCHW.clamp_(-1, 1)
        return samples_BCHW


def _noise_like(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    # Drawn contiguous: the numbers must not depend on the memory format.
    return torch.randn(
        images_BCHW.shape, generator=generator, device=images_BCHW.device, dtype=images_BCHW.dtype
    )


N_CHAINS = 64


def chain_log_density(
    model: JointEnergyModel, sampler: LangevinSampler, image_shape: torch.Size, seed: int
) -> float:
    """Give the mean log p~ at the ends of 64 chains that begin uniform in [-1, 1].

    `image_shape` is (C, H, W). A model whose p~ describes its images gives about the mean log
    p~ of the images; one trained as a classifier alone gives far more: it finds noise that it
    climbed to denser than any image. Afterwards the model is in the mode it was in.
    """
    device = next(model.parameters()).device
    stream = generator(seed, "chains", device=device)
    start_BCHW = torch.rand(N_CHAINS, *image_shape, generator=stream, device=device) * 2 - 1
    with evaluation_mode(model):
        samples_BCHW = sampler(model.log_density, start_BCHW, stream)
        with torch.inference_mode():
            mean: float = model.log_density(samples_BCHW).double().mean().item()
    return mean
