"""The family `flux`: a variational autoencoder, adversarial training, a flow with captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jemtrack.errors import InputError
from jemtrack.flux.forms import FluxSettings, FluxStep, first_steps
from jemtrack.flux.networks.shape import LARGEST_SIDE, SMALLEST_SIDE, FluxShape
from jemtrack.parameters import build
from jemtrack.train.family import Family
from jemtrack.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from jemtrack.data.images import DataSplits
    from jemtrack.events.handlers import Callback
    from jemtrack.train.family import ModelMaker
    from jemtrack.train.phase import Batches, Models, Objective, Validation
    from jemtrack.train.run import Training

_SIZES = {
    "vae_dim": "4",
    "text_embedding_dim": "64",
    "feature_maps_dim": "48 (a U-Net) for latents of less than 64 pixels, else 128 (a transformer)",
}


class FluxFamily(Family):
    """Latent flow models; see `jemtrack.train.family.Family`."""

    name = "flux"
    step = FluxStep
    shape = FluxShape
    settings = FluxSettings

    def notes(self, recipe: Recipe, model: FluxShape) -> Iterator[str]:
        """Yield what the modes mean where their names tell too little, and the open sizes."""
        steps = _steps(recipe)
        if any(step.has_features for step in steps):
            yield (
                "use_lpips: the features are those of a small classifier of the training images, "
                "not LPIPS"
            )
        full = any(step.train_diff_full and "text_encoder" not in step.frozen for step in steps)
        if "text_encoder" in first_steps(steps) and not full:
            yield (
                "text_encoder is never trained: captions are told apart by the vectors that it "
                "was drawn with; train_diff_full trains it"
            )
        left_open = [f"{size} {what}" for size, what in _SIZES.items() if not getattr(model, size)]
        if left_open:
            yield (
                f"sizes that the file leaves open: {', '.join(left_open)}; images are halved once "
                "below 13 pixels, twice below 64, three times below 256"
            )

    def check_data(self, model: FluxShape, settings: FluxSettings, data: DataSplits) -> None:
        """Check that the networks take images of this size, and can be in memory."""
        from jemtrack.flux.networks.model_file import check_sizes
        from jemtrack.flux.training import sizes_for

        sides = data.train.images_NCHW.shape[2:]
        if not SMALLEST_SIDE <= min(sides) <= max(sides) <= LARGEST_SIDE:
            raise InputError(
                f"{data.dataset}: images must have {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side "
                f"for the family flux, got {sides[0]}x{sides[1]}"
            )
        check_sizes(sizes_for(model, data, (), ("compressor",)))

    def networks(
        self, recipe: Recipe, model: FluxShape, data: DataSplits, start: Path | None
    ) -> dict[str, ModelMaker]:
        """Return makers of all models that a step needs; what `start` has comes from there."""
        from jemtrack.flux.training import model_makers

        return model_makers(_steps(recipe), model, data, start)

    def parts(
        self,
        recipe: Recipe,
        settings: FluxSettings,
        data: DataSplits,
        device: torch.device,
        objective: Any,
    ) -> Iterator[tuple[Objective, Batches, Validation | None]]:
        """Make each step's objective, batches of an order and noise of its own, and validation."""
        from jemtrack.flux.training import phase_parts

        return phase_parts(_steps(recipe), settings, data, device)

    def callbacks(self, training: Training) -> Sequence[Callback]:
        """Make what averages the weights, tells of the models, and writes samples."""
        from jemtrack.flux.training import usual_callbacks

        return usual_callbacks(_steps(training.recipe), training)

    def save(self, path: Path, models: Models, training: Training) -> None:
        """Write the networks, with all that is needed to sample from them."""
        from jemtrack.flux.training import save

        save(path, models, _steps(training.recipe), training)

    def load(self, path: Path) -> Models:
        """Load the networks."""
        from jemtrack.flux.networks.model_file import load_models

        return load_models(path).models

    def draw(
        self, model: Path, captions: Sequence[str], seed: int, out: Path, options: Mapping[str, Any]
    ) -> list[str]:
        """Draw an image for each caption into a grid at `out`; see `jemtrack.commands.sample`."""
        from jemtrack.flux.sampling.generate import FlowSampler
        from jemtrack.flux.sampling.grid import draw_grid

        sampler = build(FlowSampler, dict(options), "jemtrack sample:")
        return draw_grid(model, captions, seed, out, sampler)


def _steps(recipe: Recipe) -> tuple[FluxStep, ...]:
    return recipe.steps  # type: ignore[return-value]


FAMILY = FluxFamily()
