"""From parameters, images and a recipe to a network and the phases that train it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

from jemtrack.data.augment import Augmentation, crop_padding
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.inference import predict, validation_metrics
from jemtrack.jem.networks.model_file import load_weights_into
from jemtrack.jem.networks.shape import NetworkShape, WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.sampling.chain_starts import check_each_class
from jemtrack.jem.sampling.langevin import LangevinSampler, chain_log_density
from jemtrack.jem.training.batches import TrainingBatches, pick_labelled
from jemtrack.jem.training.options import NETWORK
from jemtrack.parameters import parameter_names
from jemtrack.shared.hardware import check_memory
from jemtrack.shared.random_streams import stream_seed
from jemtrack.train.phase import Batches, Models, Objective, Validation
from jemtrack.train.recipe import Recipe

if TYPE_CHECKING:
    from jemtrack.jem.training.forms import BatchArgs, JemStep


class ObjectiveOfTraining(Objective, Protocol):
    """What an objective may have beside its call, each of them or none.

    Attributes:
        plain_density_images: whether the density is learned from images that are not augmented.
    """

    plain_density_images: bool

    def check_training(self, *, n_classes: int, batch_size: int, n_steps: int) -> None:
        """Check the options against a training's classes, batches and steps of a chain.

        Raises:
            ParameterError: if they do not fit.
        """

    def begin(
        self, images: LabelledImages, *, n_classes: int, batch_size: int, n_steps: int, seed: int
    ) -> Objective:
        """Return the objective of one training, with a state of its own.

        `images` are the labelled ones, on the training's device.

        Raises:
            ParameterError: as `check_training` does.
        """
        ...


def network_shape(model: NetworkShape, data: DataSplits) -> WideResNetShape:
    """Describe the network that fits the parameters and the images."""
    return WideResNetShape(
        **{name: getattr(model, name) for name in parameter_names(NetworkShape)},
        channels=data.train.images_NCHW.shape[1],  # type: ignore[arg-type]
        n_classes=data.n_classes,
    )


def check_sizes(shape: WideResNetShape, settings: BatchArgs, data: DataSplits) -> None:
    """Check that the network, its gradient and a batch can be in memory.

    Raises:
        ParameterError: if they cannot, with the bytes that they would take.
    """
    weights = 2 * 4 * shape.n_weights
    check_memory("width", shape.width, weights)
    n_images = min(settings.batch_size, len(data.train))
    batch = 4 * n_images * shape.n_activations(data.train.images_NCHW.shape[-1])
    check_memory("batch_size", settings.batch_size, weights + batch)


def initial_network(shape: WideResNetShape, start: Path | None = None) -> JointEnergyModel:
    """Make the network, from the file `start` or else from the global random stream.

    Raises:
        InputError: if the file holds no network of this shape.
    """
    network = build_model(shape)
    if start:
        load_weights_into(network, shape, start)
    return network


def network_of(models: Models) -> JointEnergyModel:
    """Return the network of the models."""
    return cast(JointEnergyModel, models[NETWORK])


def phase_parts(
    recipe: Recipe,
    objective: Objective | None,
    settings: BatchArgs,
    data: DataSplits,
    device: torch.device,
) -> Iterator[tuple[Objective, Batches, Validation | None]]:
    """Yield objective, batches on `device` and validation of each step of a recipe.

    `objective` serves the steps that have none.

    Raises:
        InputError: if an objective does not fit.
    """
    few, side = settings.labels_per_class, data.train.images_NCHW.shape[-1]
    images = LabelledImages(data.train.images_NCHW.to(device), data.train.labels_N.to(device))
    augmentation = Augmentation(sigma=settings.sigma, flip=data.flip, pad=crop_padding(side))
    labelled_M = pick_labelled(data.train.labels_N, few, data.seed) if few > 0 else None
    labelled = images if labelled_M is None else images[labelled_M.to(device)]
    validation = _validation(settings, data)
    for number, step in enumerate(cast("Sequence[JemStep]", recipe.steps)):
        # Each step has an order and noise of its own; the first one's is the ordinary training's.
        seed = stream_seed(data.seed, "step", step.name) if number else data.seed
        chosen = step.objective.build() if step.objective else objective
        assert chosen is not None  # the recipe was checked
        plain = getattr(chosen, "plain_density_images", False)
        batches = TrainingBatches(
            images, augmentation, settings.batch_size, seed, labelled_M, plain
        )
        if hasattr(chosen, "begin"):
            chosen = chosen.begin(labelled, **_training(settings, data), seed=seed)
        yield chosen, batches, validation


def check_objective(objective: Objective | None, settings: BatchArgs, data: DataSplits) -> None:
    """Let an objective that has something to check do so.

    Raises:
        ParameterError: if it does not fit the training.
    """
    size = getattr(objective, "buffer_size", 0)
    check_memory("buffer_size", size, 4 * size * data.train.images_NCHW.shape[1:].numel())
    if getattr(objective, "start", None) == "class_gaussians":
        check_each_class(data.train, data.n_classes)
    if objective is not None and hasattr(objective, "check_training"):
        objective.check_training(**_training(settings, data))


def _training(settings: BatchArgs, data: DataSplits) -> dict[str, Any]:
    return {
        "n_classes": data.n_classes,
        "batch_size": settings.batch_size,
        "n_steps": settings.n_steps,
    }


def final_metrics(models: Models, settings: BatchArgs, data: DataSplits) -> dict[str, float]:
    """Compute the mean log density that chains of `n_steps` reach; nothing for no steps."""
    if not settings.n_steps:
        return {}
    sampler = LangevinSampler(n_steps=settings.n_steps)
    image_shape = data.train.images_NCHW.shape[1:]
    density = chain_log_density(network_of(models), sampler, image_shape, data.seed)
    return {"chain_log_density": density}


def _validation(settings: BatchArgs, data: DataSplits) -> Validation | None:
    if len(data.valid) == 0:
        return None

    def measure(models: Models) -> dict[str, float]:
        predictions = predict(network_of(models), data.valid, sigma=settings.sigma, seed=data.seed)
        return validation_metrics(predictions, data.valid.labels_N)

    return Validation(measure, settings.eval_every)
