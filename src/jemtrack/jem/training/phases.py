"""From parameters, images and a recipe to a network and the phases that train it."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from jemtrack.data.augment import Augmentation, crop_padding
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.jem.family import FAMILY, NETWORK
from jemtrack.jem.inference import predict, validation_metrics
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.model_file import load_weights_into
from jemtrack.jem.networks.shape import NormName, WideResNetShape
from jemtrack.jem.training.batches import TrainingBatches, pick_labelled
from jemtrack.train.phase import Batches, Models, Objective, Phase, Validation, phases
from jemtrack.train.random_streams import stream_seed
from jemtrack.train.recipe import Recipe, Step


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

    @property
    def uncond(self) -> bool:
        """Whether log p~(x) comes from the energy head."""


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
    def n_steps(self) -> int:
        """Langevin steps of a chain."""

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
        uncond=choice.uncond,
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
    # Each step has an order and noise of its own; the first one's is the ordinary training's.
    seeds = [
        stream_seed(data.seed, "step", step.name) if number else data.seed
        for number, step in enumerate(recipe.steps)
    ]

    def batches(number: int, step: Step) -> Batches:
        plain = getattr(objectives[number], "plain_density_images", False)
        return TrainingBatches(
            images, augmentation, choice.batch_size, seeds[number], labelled_M, plain
        )

    labelled = images if labelled_M is None else images[labelled_M.to(device)]
    begun = [
        _begun(objective, labelled, data.n_classes, choice, seed)
        for objective, seed in zip(objectives, seeds, strict=True)
    ]
    return phases(recipe, FAMILY, begun, batches, _validation(choice, data))


def _begun(
    objective: Objective, labelled: LabelledImages, n_classes: int, choice: BatchChoice, seed: int
) -> Objective:
    """Give the objective of one training, where it has a state or must see the images."""
    begin: Callable[..., Objective] | None = getattr(objective, "begin", None)
    if begin is None:
        return objective
    return begin(
        labelled,
        n_classes=n_classes,
        batch_size=choice.batch_size,
        n_steps=choice.n_steps,
        seed=seed,
    )


def _validation(choice: BatchChoice, data: DataSplits) -> Validation | None:
    if len(data.valid) == 0:
        return None

    def measure(models: Models) -> dict[str, float]:
        network = models[NETWORK]
        assert isinstance(network, JointEnergyModel)
        predictions = predict(network, data.valid, sigma=choice.sigma, seed=data.seed)
        return validation_metrics(predictions, data.valid.labels_N)

    return Validation(measure, choice.eval_every)
