"""What a trained model says of every image set of an evaluation, computed once."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.engine.seeds import generator
from jemtrack.evaluation.mahalanobis import Mahalanobis
from jemtrack.evaluation.model_outputs import Look, ModelOutputs
from jemtrack.jem.approximate_mass import DensityAndSlope, density_and_slope
from jemtrack.jem.inference import noisy_batches, predict
from jemtrack.jem.model_file import load_model


@dataclass(frozen=True)
class ImageSets:
    """The images that models are shown.

    Attributes:
        measured: the labelled images that the measures are of.
        train: some of the training images.
        valid: the validation images, or none.
        outliers: by partner, images of the same shape, (N, C, H, W).
    """

    measured: LabelledImages
    train: LabelledImages
    valid: LabelledImages | None
    outliers: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        data: DataSplits,
        measured: LabelledImages,
        n_train: int,
        outliers: Mapping[str, Tensor],
    ) -> "ImageSets":
        """Choose `n_train` training images, which the data's seed draws, and all else whole."""
        drawn = torch.randperm(
            len(data.train), generator=generator(data.seed, "evaluated training images")
        )
        valid = data.valid if len(data.valid) else None
        return cls(measured, data.train[drawn[:n_train]], valid, outliers)


def look_at(
    path: Path,
    sets: ImageSets,
    *,
    noise: bool,
    seed: int,
    batch_size: int,
    device: torch.device,
) -> Look:
    """Let the model at `path` look at each set, a batch at a time; at the training images first.

    With `noise`, the images have the noise that the model was trained with.
    """
    model, _, notes = load_model(path)
    model.to(device)
    sigma = float(notes["sigma"]) if noise else 0.0

    def look(images_NCHW: Tensor) -> DensityAndSlope:
        return density_and_slope(model, noisy_batches(images_NCHW, sigma, seed, batch_size))

    of_train = look(sets.train.images_NCHW)
    mahalanobis = Mahalanobis(of_train.features_NF, sets.train.labels_N)

    def outputs(found: DensityAndSlope) -> ModelOutputs:
        logits_NC, log_density_N, mass_N, features_NF = found
        return ModelOutputs(logits_NC, log_density_N, mass_N, mahalanobis(features_NF))

    measured = outputs(look(sets.measured.images_NCHW))
    valid = None
    if sets.valid is not None:
        valid = predict(model, sets.valid, sigma=sigma, seed=seed, batch_size=batch_size).logits_NC
    outliers = {name: outputs(look(images)) for name, images in sets.outliers.items()}
    return Look(measured, outputs(of_train), valid, outliers)


def looks(
    paths: list[Path],
    sets: ImageSets,
    *,
    noise: bool,
    seed: int,
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[str, Look]]:
    """Yield each model's name, which is its trainer's, and its `Look`, with a bar of progress."""
    console = Console(stderr=True)
    shown = track(paths, "models", console=console, disable=not sys.stderr.isatty())
    for path in shown:
        look = look_at(path, sets, noise=noise, seed=seed, batch_size=batch_size, device=device)
        yield path.parent.name, look
