"""The training of the autoencoder: by reconstruction, against a discriminator, or both.

Letters: B batch, C channels, H height, W width; `z` is the latent map.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from jemtrack.flux.batches import CaptionedBatch
from jemtrack.flux.networks.autoencoder import Compressor, Expander
from jemtrack.flux.objectives.adversarial import (
    AdversarialWeight,
    GradientPenalty,
    discriminator_hinge,
    generator_hinge,
)
from jemtrack.flux.objectives.divergence import Divergence
from jemtrack.flux.objectives.feature_distance import FeatureNetwork, feature_distance
from jemtrack.shared.metrics import declare_metric
from jemtrack.train.phase import Models, Turn

VAE_LOSS = declare_metric("vae_loss")
KL_LOSS = declare_metric("kl_loss")
G_LOSS = declare_metric("g_loss")
D_LOSS = declare_metric("d_loss")
LPIPS_LOSS = declare_metric("lpips_loss")  # the seed's name; see `feature_distance`


@dataclass(frozen=True)
class Adversary:
    """What the adversarial part of a step is made of.

    `steps_before` are the optimization steps of earlier phases that had it.
    """

    weight: AdversarialWeight
    penalty: GradientPenalty
    steps_before: int = 0


@dataclass(frozen=True)
class AutoencoderObjective:
    """Trains compressor and expander, and with an `adversary` the discriminator first.

    With `reconstruct` the loss is |x - x'| + mse_weight |x - x'|^2 + beta KL of the decoded x', and
    the adversarial loss reaches the expander alone: it decodes the latent once more, detached.
    Without it the adversarial loss takes the reconstruction's place, and reaches the compressor
    through the latent.

    Attributes:
        divergence: KL and its weight.
        reconstruct: minimise the error of pixels.
        mse_weight: of the mean squared error, beside the mean absolute one.
        features: weight of the perceptual loss; None: there is none.
        adversary: None: no discriminator.
        spade: let the latent modulate the expander's norms.
        steps_before: optimization steps of earlier phases that train the same: warm-ups go on.
    """

    divergence: Divergence
    reconstruct: bool = True
    mse_weight: float = 0.0
    features: float | None = None
    adversary: Adversary | None = None
    spade: bool = False
    steps_before: int = 0

    def __call__(self, models: Models, batch: CaptionedBatch) -> Iterator[Turn]:
        """Yield the discriminator's turn, if there is one, and the autoencoder's."""
        compressor = cast(Compressor, models["compressor"])
        expander = cast(Expander, models["expander"])
        step = batch.step + self.steps_before
        posterior = compressor(batch.images_BCHW)
        z_BCHW = posterior.sample(batch.noise("latent", tuple(posterior.mean_BCHW.shape[1:])))
        decoded_BCHW = expander(z_BCHW, self.spade)
        if self.adversary:
            yield self._discriminator_turn(models, batch, decoded_BCHW.detach())
        kl_C = self.divergence.by_channel(posterior)
        loss = self.divergence.weight(step) * self.divergence(kl_C)
        losses = {KL_LOSS: kl_C.mean().detach()}
        wanted = None
        if self.reconstruct:
            wanted, of_pixels = self._reconstruction(models, batch, decoded_BCHW)
            loss, losses = loss + wanted, losses | of_pixels
        if self.adversary:
            judged_BCHW = (
                expander(z_BCHW.detach(), self.spade) if self.reconstruct else decoded_BCHW
            )
            adversarial = generator_hinge(models["discriminator"](judged_BCHW), batch.mean)
            n_before = batch.step + self.adversary.steps_before
            weight = self.adversary.weight(n_before, wanted, adversarial, expander.last_weights)
            loss, losses = loss + weight * adversarial, losses | {G_LOSS: adversarial.detach()}
        yield Turn({"loss": loss, **losses}, ("vae",))

    def _reconstruction(
        self, models: Models, batch: CaptionedBatch, decoded_BCHW: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        error_BCHW = decoded_BCHW - batch.images_BCHW
        of_pixels = batch.mean(error_BCHW.abs())
        if self.mse_weight:
            of_pixels = of_pixels + self.mse_weight * batch.mean(error_BCHW.square())
        if self.features is None:
            return of_pixels, {VAE_LOSS: of_pixels.detach()}
        network = cast(FeatureNetwork, models["features"])
        of_features = feature_distance(network, decoded_BCHW, batch.images_BCHW, batch.mean)
        losses = {VAE_LOSS: of_pixels.detach(), LPIPS_LOSS: of_features.detach()}
        return of_pixels + self.features * of_features, losses

    def _discriminator_turn(self, models: Models, batch: CaptionedBatch, fake_BCHW: Tensor) -> Turn:
        assert self.adversary
        discriminator, penalty = models["discriminator"], self.adversary.penalty
        both = discriminator(torch.cat([batch.images_BCHW, fake_BCHW]))
        real, fake = both.chunk(2)
        loss = hinge = discriminator_hinge(real, fake, batch.mean)
        if penalty.due(batch.step + self.adversary.steps_before):
            loss = loss + penalty(discriminator, batch.images_BCHW, batch.mean)
        return Turn({"loss": loss, D_LOSS: hinge.detach()}, ("discriminator",))
