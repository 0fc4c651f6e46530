"""Models and batches of images as a configuration describes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jemtrack.data.images import PARTS, DataSplits, LabelledImages, to_unit_range
from jemtrack.errors import InputError
from jemtrack.factories.configuration import Config, Configuration, configured
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.model_file import load_weights_into, save_model
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import WideResNetTrunk
from jemtrack.jem.training.phases import network_shape
from jemtrack.parameters import format_value


class ConfiguredModel(JointEnergyModel):
    """A network that knows its shape, and the configuration that it was created from."""

    def __init__(self, shape: WideResNetShape, configuration: Configuration) -> None:
        trunk = WideResNetTrunk(shape)
        super().__init__(trunk, trunk.n_features, shape.n_classes, shape.uncond)
        self.shape, self.configuration = shape, configuration

    @property
    def data(self) -> DataSplits:
        """The images of its configuration."""
        return self.configuration.data

    def save(self, path: str | Path) -> None:
        """Write it as trainers do; `jemtrack.load_model` reads it."""
        sigma = str(self.configuration.file.training.sigma)
        save_model(Path(path), self, self.shape, {**self.configuration.notes, "sigma": sigma})


def create_model(config: Config, weights: str | Path | None = None) -> ConfiguredModel:
    """Create the network of a configuration, of its seed's random weights or those of a file.

    Args:
        config: a recipe file, or a mapping of its sections; see `Configuration`.
        weights: a model.safetensors of the same shape.

    Raises:
        InputError: a line for each problem of the configuration; if its images are missing; or if
            the file holds no model of this shape.
    """
    configuration = configured(config)
    data = configuration.data
    shape = network_shape(configuration.file.model, data)
    with torch.random.fork_rng():
        torch.manual_seed(data.seed)
        model = ConfiguredModel(shape, configuration)
    if weights:
        load_weights_into(model, shape, Path(weights))
    return model


@dataclass(frozen=True, eq=False)
class ImageLoader:
    """Batches of labelled images in their order: floats in [-1, 1] (B, C, H, W), and labels (B,).

    A trainer takes its `images` and draws batches of its own, in random order and augmented.
    """

    images: LabelledImages
    batch_size: int

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches."""
        parts = (self.images.images_NCHW, self.images.labels_N)
        batches = zip(*(torch.split(part, self.batch_size) for part in parts), strict=True)
        return ((to_unit_range(images), labels) for images, labels in batches)


def create_dataloader(dataset: Any, config: Config) -> ImageLoader:
    """Create a loader in batches of the configuration's `training.batch_size`.

    Args:
        dataset: train, valid or test of the configuration's data; or `LabelledImages`; or a pair of
            images, uint8 (N, C, H, W), and their labels, whole numbers (N,), as tensors or arrays.
        config: see `create_model`.

    Raises:
        InputError: if the images are not as described.
    """
    configuration = configured(config)
    return ImageLoader(
        labelled_images(dataset, configuration), configuration.file.training.batch_size
    )


def labelled_images(dataset: Any, configuration: Configuration) -> LabelledImages:
    """Return the images that `create_dataloader` is handed, or those of such a loader.

    Raises:
        InputError: if they are not as described there, or of another shape or class than those of
            the configuration.
    """
    if isinstance(dataset, ImageLoader | LabelledImages):
        found = dataset.images if isinstance(dataset, ImageLoader) else dataset
    elif isinstance(dataset, str) and dataset in PARTS:
        found = getattr(configuration.data, dataset)
    elif isinstance(dataset, tuple | list) and len(dataset) == 2:
        images, labels = (torch.as_tensor(np.ascontiguousarray(part)) for part in dataset)
        found = LabelledImages(images, labels.long() if not labels.is_floating_point() else labels)
    else:
        raise InputError(
            f"images must be {', '.join(PARTS)}, LabelledImages, a loader of create_dataloader or "
            f"a pair of images and labels, got {format_value(dataset)}"
        )
    expected, data = configuration.data.train.images_NCHW.shape[1:], configuration.data
    if (shape := found.images_NCHW.shape[1:]) != expected:
        raise InputError(
            f"images must be of {tuple(expected)}, as those of {data.dataset}, got {tuple(shape)}"
        )
    if len(found) and not 0 <= int(found.labels_N.min()) <= int(found.labels_N.max()) < (
        data.n_classes
    ):
        raise InputError(f"labels must be 0 to {data.n_classes - 1}")
    return found
