"""Rectified flow: a straight path from noise to the latent of an image.

Time runs from 0, noise, to 1, data: z_t = (1 - t) z_0 + t z_1, whose velocity is z_1 - z_0.
Letters: B batch, C channels, H height, T tokens, W width.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from jemtrack.flux.batches import CaptionedBatch
from jemtrack.flux.networks.autoencoder import Compressor
from jemtrack.flux.networks.flow_processor import FlowProcessor
from jemtrack.flux.networks.shape import PAD
from jemtrack.parameters import Share, parameters
from jemtrack.shared.metrics import declare_metric
from jemtrack.train.distributed import all_gather
from jemtrack.train.phase import Models, Turn

FLOW_LOSS = declare_metric("flow_loss")


@parameters
class FlowPath:
    """How the times of a batch are drawn, and how often a caption is left out.

    Source: Liu et al. 2023 (https://arxiv.org/abs/2209.03003), equation 1; times by Esser et al.
    2024 (https://arxiv.org/abs/2403.03206), section 3.1; captions are left out for guidance as by
    Ho & Salimans 2022 (https://arxiv.org/abs/2207.12598), algorithm 1.

    Attributes:
        time: logit_normal, the sigmoid of a standard normal, or uniform.
        caption_dropout: probability with which an image has no caption.
    """

    time: Literal["logit_normal", "uniform"] = "logit_normal"
    caption_dropout: Share = 0.1

    def times(self, batch: CaptionedBatch) -> Tensor:
        """Draw a time for each image, (B,)."""
        normal_B = batch.noise("time", ())
        return normal_B.sigmoid() if self.time == "logit_normal" else torch.special.ndtr(normal_B)

    def captions(self, batch: CaptionedBatch) -> Tensor:
        """Return the captions' tokens, of which some are left out, (B, T)."""
        dropped_B = torch.special.ndtr(batch.noise("caption", ())) < self.caption_dropout
        return batch.tokens_BT.masked_fill(dropped_B[:, None], PAD)

    @staticmethod
    def between(start_BCHW: Tensor, end_BCHW: Tensor, time_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points on the paths at their times, and the paths' velocities."""
        time_B111 = time_B[:, None, None, None]
        points_BCHW = (1 - time_B111) * start_BCHW + time_B111 * end_BCHW
        return points_BCHW, end_BCHW - start_BCHW


@dataclass(frozen=True)
class FlowObjective:
    """The mean squared error of the velocity of latents, which are detached and standardised.

    Attributes:
        path: times and captions.
        train_text: train the text encoder with it; without, it stays as it is to the bit.
        steps_before: optimization steps of earlier phases that train the flow. The very first
            batch tells the scale of the latents.
    """

    path: FlowPath
    train_text: bool
    steps_before: int = 0

    def __call__(self, models: Models, batch: CaptionedBatch) -> Iterator[Turn]:
        """Yield the one turn of flow and text encoder."""
        processor = cast(FlowProcessor, models["flow_processor"])
        end_BCHW = self._latents(models, batch)
        if batch.step + self.steps_before == 0:
            processor.scale.measure(all_gather(end_BCHW))
        end_BCHW = processor.scale.standardise(end_BCHW)
        start_BCHW = batch.noise("noise", tuple(end_BCHW.shape[1:]))
        time_B = self.path.times(batch)
        points_BCHW, velocity_BCHW = self.path.between(start_BCHW, end_BCHW, time_B)
        with nullcontext() if self.train_text else torch.no_grad():
            text = models["text_encoder"](self.path.captions(batch))
        found_BCHW = processor(points_BCHW, time_B, text)
        loss = batch.mean((found_BCHW - velocity_BCHW).square())
        trained = ("flow", "text_encoder") if self.train_text else ("flow",)
        yield Turn({"loss": loss, FLOW_LOSS: loss.detach()}, trained)

    @staticmethod
    @torch.no_grad()
    def _latents(models: Models, batch: CaptionedBatch) -> Tensor:
        """Draw the latents; no layer of the compressor depends on the mode that it is in."""
        posterior = cast(Compressor, models["compressor"])(batch.images_BCHW)
        shape = tuple(posterior.mean_BCHW.shape[1:])
        z_BCHW: Tensor = posterior.sample(batch.noise("flow latent", shape))
        return z_BCHW
