"""Mean flow: the mean velocity over a span of time, by which one step leads from noise to data.

With the mean velocity u(z_t, t, h) over the span from t to t + h, z_{t+h} = z_t + h u. Its
derivative along the path, dz/dt = v with t + h held, gives u = v + h du/dt, and the loss is the
squared error of u beside that, which is held. At h = 0 it is the rectified flow.

Time runs from 0, noise, to 1, data. Letters: B batch, C channels, H height, W width.
"""

from collections.abc import Callable
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from jemtrack.flux.batches import CaptionedBatch
from jemtrack.flux.networks.flow_processor import FlowProcessor
from jemtrack.flux.networks.shape import PAD
from jemtrack.flux.networks.text_encoder import Text
from jemtrack.flux.objectives.rectified_flow import FlowPath
from jemtrack.parameters import NotNegative, parameters

MeanVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # of points, times and spans
_SMALL = 1e-3


@parameters
class MeanFlowPath(FlowPath):
    """How the spans of a batch are drawn, and the velocity that is followed.

    Source: Geng et al. 2025 (https://arxiv.org/abs/2505.13447), equations 6 to 10 for the target,
    13 and 17 for the guidance, and section 4.3 for the weight 1 / (|error|^2 + c) of an image.

    Attributes:
        moments: share of the images whose span is 0.
        guidance: w in w v + (1 - w) u of the velocity and the one without caption, at h = 0. The
            mean velocity that is learned is then guided, and needs no second evaluation.
    """

    moments: Annotated[float, Field(ge=0, le=1)] = 0.75
    guidance: NotNegative = 1.0

    def errors(
        self, processor: FlowProcessor, ends: tuple[Tensor, Tensor], text: Text,
        batch: CaptionedBatch, encoder: nn.Module,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return what is minimised, and the squared errors of the mean velocity, both (B, ...)."""
        first_B, second_B = self.times(batch), self.times(batch, "end of the span")
        time_B = torch.minimum(first_B, second_B)
        is_moment_B = torch.special.ndtr(batch.noise("span", ())) < self.moments
        span_B = torch.maximum(first_B, second_B).where(~is_moment_B, time_B) - time_B
        points_BCHW, velocity_BCHW = self.between(*ends, time_B)
        if self.guidance != 1:
            velocity_BCHW = self._guided(
                processor, points_BCHW, velocity_BCHW, time_B, batch, encoder
            )
        with torch.autocast(points_BCHW.device.type, enabled=False):
            found_BCHW, target_BCHW = mean_velocity_target(
                lambda z, t, h: processor(z, t, text, h), (points_BCHW, time_B, span_B),
                velocity_BCHW,
            )  # fmt: skip
        squares_BCHW = (found_BCHW - target_BCHW).square()
        size_B111 = squares_BCHW.detach().mean(dim=(1, 2, 3), keepdim=True)
        return squares_BCHW / (size_B111 + _SMALL), squares_BCHW

    def _guided(
        self, processor: FlowProcessor, points_BCHW: Tensor, velocity_BCHW: Tensor,
        time_B: Tensor, batch: CaptionedBatch, encoder: nn.Module,
    ) -> Tensor:  # fmt: skip
        """Guide the velocity of the images that have a caption; the others learn the plain one."""
        tokens_BT = self.captions(batch)
        with torch.no_grad():
            without_BCHW = processor(points_BCHW, time_B, encoder(torch.full_like(tokens_BT, PAD)))
        guided_BCHW = self.guidance * velocity_BCHW + (1 - self.guidance) * without_BCHW
        has_caption_B = (tokens_BT != PAD).any(dim=1)
        return torch.where(has_caption_B[:, None, None, None], guided_BCHW, velocity_BCHW)


def mean_velocity_target(
    mean_velocity: MeanVelocity, at: tuple[Tensor, Tensor, Tensor], velocity: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the mean velocity at points, times and spans, and its target, which is held."""
    _, time_B, span_B = at
    along = velocity, torch.ones_like(time_B), -torch.ones_like(span_B)
    # The fused kernels of attention have no derivative in forward mode.
    with sdpa_kernel(SDPBackend.MATH):
        found, slope = cast(tuple[Tensor, Tensor], torch.func.jvp(mean_velocity, at, along))
    span = span_B.view(-1, *[1] * (velocity.ndim - 1))
    return found, (velocity + span * slope).detach()
