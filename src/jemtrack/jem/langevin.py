"""Langevin dynamics in pixel space.

Letters: B batch, C channels, H height, W width.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from jemtrack.parameters import parameters


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
