"""Draw images by captions.

Letters: B images drawn at once, C channels, H height, N images, T tokens, W width.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from jemtrack.errors import InputError
from jemtrack.flux.captions import tokenise
from jemtrack.flux.networks.autoencoder import Expander
from jemtrack.flux.networks.flow_processor import FlowProcessor
from jemtrack.flux.networks.shape import PAD
from jemtrack.flux.networks.text_encoder import Text, TextEncoder
from jemtrack.flux.sampling.ode import Solver, Velocity, evaluations, integrate
from jemtrack.parameters import AtLeastOne, parameters
from jemtrack.shared.random_streams import generator
from jemtrack.train.phase import Models

_AT_ONCE = 256


@parameters
class FlowSampler:
    """How images are drawn.

    Attributes:
        solver: of the differential equation; mean_flow steps by the mean velocity over each step,
            which only a model that was trained so can.
        n_steps: steps of the solver.
        guidance: w in u + w (c - u) of the velocities with (c) and without (u) the caption; 1 is
            the caption's own, 0 none's. Other values evaluate both, in one batch.
    """

    solver: Literal["euler", "midpoint", "heun", "mean_flow"] = "euler"
    n_steps: AtLeastOne = 8
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0

    @property
    def n_evaluations(self) -> int:
        """How often the flow processor is evaluated for an image."""
        return evaluations(self._steps_by, self.n_steps) * (1 if self.guidance in {0, 1} else 2)

    @property
    def _steps_by(self) -> Solver:
        # A step of Euler's by the mean velocity is exact.
        return "euler" if self.solver == "mean_flow" else self.solver

    @torch.inference_mode()
    def __call__(
        self, models: Models, captions: Sequence[str], vocabulary: Sequence[str], seed: int,
        spade: bool | None = None,
    ) -> Tensor:  # fmt: skip
        """Draw an image for each caption, float (N, C, H, W) in [-1, 1], on the models' device.

        The n-th image's noise depends on `seed` and n alone.

        Raises:
            InputError: if the models do not know mean velocities, and the solver needs them.
        """
        expander = cast(Expander, models["expander"])
        processor = cast(FlowProcessor, models["flow_processor"])
        if self.solver == "mean_flow" and not processor.has_span:
            raise InputError(
                "solver must not be mean_flow: the model was trained by a rectified flow"
            )
        span = 1 / self.n_steps if self.solver == "mean_flow" else 0.0
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
            velocity = guided_velocity(models, tokens_BT, self.guidance, span)
            z_BCHW = integrate(velocity, noise_BCHW, self._steps_by, self.n_steps)
            images.append(expander(processor.scale.restore(z_BCHW), spade))
        return torch.cat(images)


def guided_velocity(
    models: Models, tokens_BT: Tensor, guidance: float, span: float = 0.0
) -> Velocity:
    """Return the velocity of latents (B, C, H, W) by their captions, guided; the mean over a span.

    Source: Ho & Salimans 2022 (https://arxiv.org/abs/2207.12598), equation 6, with w + 1 as w.
    """
    processor = cast(FlowProcessor, models["flow_processor"])
    encoder = cast(TextEncoder, models["text_encoder"])
    empty_BT = torch.full_like(tokens_BT, PAD)

    def at(z_BCHW: Tensor, time: float, text: Text) -> Tensor:
        times_B, spans_B = (z_BCHW.new_full((len(z_BCHW),), each) for each in (time, span))
        out_BCHW: Tensor = processor(z_BCHW, times_B, text, spans_B)
        return out_BCHW

    if guidance in {0, 1}:
        text = encoder(tokens_BT if guidance else empty_BT)
        return lambda z_BCHW, time: at(z_BCHW, time, text)
    text = encoder(torch.cat([tokens_BT, empty_BT]))

    def velocity(z_BCHW: Tensor, time: float) -> Tensor:
        with_BCHW, without_BCHW = at(torch.cat([z_BCHW, z_BCHW]), time, text).chunk(2)
        guided_BCHW: Tensor = without_BCHW + guidance * (with_BCHW - without_BCHW)
        return guided_BCHW

    return velocity
