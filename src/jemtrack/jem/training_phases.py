"""From parameters, images and a recipe to a network and the phases that train it."""

from pathlib import Path
from typing import Protocol

import torch

from jemtrack.data.augment import Augmentation, crop_padding
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.engine.phase import Batches, Models, Objective, Phase, Validation
from jemtrack.engine.recipe import Recipe, Step
from jemtrack.engine.recipe_phases import phases
from jemtrack.engine.seeds import stream_seed
from jemtrack.jem.batches import TrainingBatches, pick_labelled
from jemtrack.jem.energy_model import JointEnergyModel
from jemtrack.jem.inference import predict, validation_metrics
from jemtrack.jem.model_file import load_weights_into
from jemtrack.jem.network_options import NormName
from jemtrack.jem.recipe_family import FAMILY, NETWORK
from jemtrack.jem.wide_resnet import WideResNetShape


class NetworkChoice(Protocol):
    """Parameters that describe the network: TrainArgs has them, and a recipe file's `model`."""

    @property
    def depth(self) -> int:
        """Layers, 6n + 4."""

    @property
    def width(self) -> int:
        """Widening factor."""

    @property
    def norm(self) -> NormName:
        """Normalisation in the blocks."""

    @property
    def dropout_rate(self) -> float:
        """Share of the activations that a block drops."""


class BatchChoice(Protocol):
    """Parameters of what is seen: TrainArgs has them, and a recipe file's `training`."""

    @property
    def batch_size(self) -> int:
        """Images in an optimization step."""

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise on images scaled to [-1, 1]."""

    @property
    def labels_per_class(self) -> int:
        """Labelled images of each class; 0 or -1: all are."""

    @property
    def eval_every(self) -> int:
        """Epochs between looks at the validation images."""


def network_shape(choice: NetworkChoice, data: DataSplits) -> WideResNetShape:
    """Describe the network that fits the parameters and the images."""
    return WideResNetShape(
        depth=choice.depth,
        width=choice.width,
        norm=choice.norm,
        dropout_rate=choice.dropout_rate,
        channels=data.train.images_NCHW.shape[1],  # type: ignore[arg-type]
        n_classes=data.n_classes,
    )


def initial_network(
    shape: WideResNetShape, start: Path | None, device: torch.device
) -> JointEnergyModel:
    """Make the network on `device`, from the file `start` or else from the global seed."""
    network = shape.build_model()
    if start:
        load_weights_into(network, shape, start)
    return network.to(device)


def training_phases(
    recipe: Recipe,
    objectives: list[Objective],
    choice: BatchChoice,
    data: DataSplits,
    device: torch.device,
) -> list[Phase]:
    """Make the phases of a recipe, a step's objective each, with batches on `device`."""
    few, side = choice.labels_per_class, data.train.images_NCHW.shape[-1]
    images = LabelledImages(data.train.images_NCHW.to(device), data.train.labels_N.to(device))
    augmentation = Augmentation(sigma=choice.sigma, flip=data.flip, pad=crop_padding(side))
    labelled_M = pick_labelled(data.train.labels_N, few, data.seed) if few > 0 else None

    def batches(number: int, step: Step) -> Batches:
        # Each step has an order and noise of its own; the first one's is the ordinary training's.
        seed = stream_seed(data.seed, "step", step.name) if number else data.seed
        return TrainingBatches(images, augmentation, choice.batch_size, seed, labelled_M)

    return phases(recipe, FAMILY, objectives, batches, _validation(choice, data))


def _validation(choice: BatchChoice, data: DataSplits) -> Validation | None:
    if len(data.valid) == 0:
        return None

    def measure(models: Models) -> dict[str, float]:
        network = models[NETWORK]
        assert isinstance(network, JointEnergyModel)
        predictions = predict(network, data.valid, sigma=choice.sigma, seed=data.seed)
        return validation_metrics(predictions, data.valid.labels_N)

    return Validation(measure, choice.eval_every)
