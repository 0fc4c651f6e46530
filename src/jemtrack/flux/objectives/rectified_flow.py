"""Rectified flow: a straight path from noise to the latent of an image.

Time runs from 0, noise, to 1, data: z_t = (1 - t) z_0 + t z_1, whose velocity is z_1 - z_0.
Letters: B batch, C channels, H height, T tokens, W width.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from jemtrack.flux.batches import CaptionedBatch
from jemtrack.flux.networks.autoencoder import Compressor
from jemtrack.flux.networks.flow_processor import FlowProcessor
from jemtrack.flux.networks.shape import PAD
from jemtrack.flux.networks.text_encoder import Text
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

    def times(self, batch: CaptionedBatch, name: str = "time") -> Tensor:
        """Draw a time for each image, (B,), from the stream of that name."""
        normal_B = batch.noise(name, ())
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

    def errors(
        self, processor: FlowProcessor, ends: tuple[Tensor, Tensor], text: Text,
        batch: CaptionedBatch, encoder: nn.Module,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return what is minimised, and the squared errors of the velocity, both (B, ...).

        `ends` are the noise and the standardised latents; `text` is of the captions.
        """
        time_B = self.times(batch)
        points_BCHW, velocity_BCHW = self.between(*ends, time_B)
        squares_BCHW = (processor(points_BCHW, time_B, text) - velocity_BCHW).square()
        return squares_BCHW, squares_BCHW


@dataclass(frozen=True)
class FlowObjective:
    """Trains the velocity of latents, which are detached and standardised.

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
        latents_BCHW = self._latents(models, batch)
        if batch.step + self.steps_before == 0:
            processor = cast(FlowProcessor, models["flow_processor"])
            processor.scale.measure(all_gather(latents_BCHW))
        minimised, squares = self._errors(models, batch, latents_BCHW)
        trained = ("flow", "text_encoder") if self.train_text else ("flow",)
        losses = {"loss": batch.mean(minimised), FLOW_LOSS: batch.mean(squares.detach())}
        yield Turn(losses, trained)

    @torch.no_grad()
    def squared_errors(self, models: Models, batch: CaptionedBatch) -> Tensor:
        """Compute the squared error of the velocity of each image, (B,)."""
        _, squares = self._errors(models, batch, self._latents(models, batch))
        return squares.flatten(1).mean(dim=1)

    def _errors(
        self, models: Models, batch: CaptionedBatch, latents_BCHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what `FlowPath.errors` does."""
        processor = cast(FlowProcessor, models["flow_processor"])
        end_BCHW = processor.scale.standardise(latents_BCHW)
        start_BCHW = batch.noise("noise", tuple(end_BCHW.shape[1:]))
        encoder = models["text_encoder"]
        with nullcontext() if self.train_text else torch.no_grad():
            text = encoder(self.path.captions(batch))
        return self.path.errors(processor, (start_BCHW, end_BCHW), text, batch, encoder)

    @staticmethod
    @torch.no_grad()
    def _latents(models: Models, batch: CaptionedBatch) -> Tensor:
        """Draw the latents; no layer of the compressor depends on the mode that it is in."""
        posterior = cast(Compressor, models["compressor"])(batch.images_BCHW)
        shape = tuple(posterior.mean_BCHW.shape[1:])
        z_BCHW: Tensor = posterior.sample(batch.noise("flow latent", shape))
        return z_BCHW
