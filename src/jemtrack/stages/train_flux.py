"""The stage TrainFlux: train an autoencoder, a discriminator and a flow in its latents."""

from pathlib import Path
from typing import Any, ClassVar

import zntrack

from jemtrack.data.images import DataSplits
from jemtrack.flux.family import FAMILY, FluxFamily
from jemtrack.flux.forms import FluxOptions
from jemtrack.flux.networks.shape import FluxShape
from jemtrack.parameters import Name, parameters
from jemtrack.stages.family_trainer import FamilyTrainer
from jemtrack.stages.stage import plot
from jemtrack.stages.training_args import TrainingArgs


@parameters
class FluxArgs(FluxShape, FluxOptions, TrainingArgs):
    """How the networks are trained.

    The bases have the sizes of the networks, what is seen and kept, and the ordinary training,
    which is that of the autoencoder alone: a recipe's steps train more.
    """

    family: ClassVar[FluxFamily] = FAMILY
    trained_model: ClassVar[str] = "vae"

    experiment: Name = "flux"

    def step_fields(self) -> dict[str, Any]:
        """Train the autoencoder by reconstruction."""
        return {"train_vae": True}


class TrainFlux(FamilyTrainer):
    """Train on the images of a prepared file and their captions.

    Attributes:
        data: the file of prepared images.
        params: how to train.
        metrics: PSNR of the validation images' reconstructions, the flow's loss on them, and the
            losses at last.
        history: the losses and the validation of each epoch.
    """

    params: FluxArgs = zntrack.deps(default_factory=FluxArgs)
    history: Path = plot(
        zntrack.nwd / "history.csv",
        x="epoch",
        y=["train_vae_loss", "train_flow_loss", "valid_flow_loss"],
    )

    compared: ClassVar[tuple[str, ...]] = (
        *("valid_psnr", "valid_flow_loss", "train_vae_loss", "train_flow_loss"),
    )

    @staticmethod
    def load(path: Path) -> DataSplits:
        """Read the prepared images."""
        return DataSplits.load(path)
