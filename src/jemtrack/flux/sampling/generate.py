"""Draw images by captions.

Letters: B images drawn at once, C channels, H height, N images, T tokens, W width.
"""

from collections.abc import Sequence
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor

from jemtrack.flux.captions import tokenise
from jemtrack.flux.networks.autoencoder import Expander
from jemtrack.flux.networks.flow_processor import FlowProcessor
from jemtrack.flux.networks.shape import PAD
from jemtrack.flux.networks.text_encoder import TextEncoder
from jemtrack.flux.sampling.ode import Solver, Velocity, evaluations, integrate
from jemtrack.parameters import AtLeastOne, parameters
from jemtrack.shared.random_streams import generator
from jemtrack.train.phase import Models

_AT_ONCE = 256


@parameters
class FlowSampler:
    """How images are drawn.

    Attributes:
        solver: of the differential equation.
        n_steps: steps of the solver.
        guidance: w in u + w (c - u) of the velocities with (c) and without (u) the caption; 1 is
            the caption's own, 0 none's. Other values evaluate both, in one batch.
    """

    solver: Solver = "euler"
    n_steps: AtLeastOne = 8
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0

    @property
    def n_evaluations(self) -> int:
        """How often the flow processor is evaluated for an image."""
        return evaluations(self.solver, self.n_steps) * (1 if self.guidance in {0, 1} else 2)

    @torch.inference_mode()
    def __call__(
        self, models: Models, captions: Sequence[str], vocabulary: Sequence[str], seed: int,
        spade: bool | None = None,
    ) -> Tensor:  # fmt: skip
        """Draw an image for each caption, float (N, C, H, W) in [-1, 1], on the models' device.

        The n-th image's noise depends on `seed` and n alone.
        """
        expander = cast(Expander, models["expander"])
        processor = cast(FlowProcessor, models["flow_processor"])
        device = next(processor.parameters()).device
        noise_NCHW = torch.stack(
            [
                torch.randn(processor.latent_shape, generator=generator(seed, "sample", number))
                for number in range(len(captions))
            ]
        ).to(device)
        tokens_NT = tokenise(captions, vocabulary).to(device)
        images = []
        for noise_BCHW, tokens_BT in zip(
            torch.split(noise_NCHW, _AT_ONCE), torch.split(tokens_NT, _AT_ONCE), strict=True
        ):
            velocity = guided_velocity(models, tokens_BT, self.guidance)
            z_BCHW = integrate(velocity, noise_BCHW, self.solver, self.n_steps)
            images.append(expander(processor.scale.restore(z_BCHW), spade))
        return torch.cat(images)


def guided_velocity(models: Models, tokens_BT: Tensor, guidance: float) -> Velocity:
    """Return the velocity of latents (B, C, H, W) by their captions, guided.

    Source: Ho & Salimans 2022 (https://arxiv.org/abs/2207.12598), equation 6, with w + 1 as w.
    """
    processor = cast(FlowProcessor, models["flow_processor"])
    encoder = cast(TextEncoder, models["text_encoder"])
    empty_BT = torch.full_like(tokens_BT, PAD)
    if guidance in {0, 1}:
        text = encoder(tokens_BT if guidance else empty_BT)
        return lambda z_BCHW, time: processor(z_BCHW, z_BCHW.new_full((len(z_BCHW),), time), text)
    text = encoder(torch.cat([tokens_BT, empty_BT]))

    def velocity(z_BCHW: Tensor, time: float) -> Tensor:
        both_BCHW = torch.cat([z_BCHW, z_BCHW])
        of_both = processor(both_BCHW, both_BCHW.new_full((len(both_BCHW),), time), text)
        with_BCHW, without_BCHW = of_both.chunk(2)
        guided_BCHW: Tensor = without_BCHW + guidance * (with_BCHW - without_BCHW)
        return guided_BCHW

    return velocity
