"""Approximate mass: how flat the density is where an image stands.

Grathwohl et al. 2020 (https://arxiv.org/abs/1912.03263), section 5.3: an image may be dense and
yet have little probability around it, as the density falls off steeply on all sides. The score
is -||d log p~(x) / dx||, the Euclidean norm over all pixels; it is 0 at a flat mode, and higher
is more alike to the training images.

Letters: N images, B batch, C channels in `BCHW` and classes in `logits_NC`, F features.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.mahalanobis import Mahalanobis
from jemtrack.evaluation.model_outputs import Look, ModelOutputs
from jemtrack.jem.inference import noisy_batches, predict
from jemtrack.jem.networks.energy_model import JointEnergyModel, evaluation_mode
from jemtrack.jem.networks.model_file import load_model
from jemtrack.train.random_streams import generator


class DensityAndSlope(NamedTuple):
    """Logits (N, C), log p~(x) and approximate mass (N,), and features (N, F), on the CPU."""

    logits_NC: Tensor
    log_density_N: Tensor
    approximate_mass_N: Tensor
    features_NF: Tensor


def density_and_slope(model: JointEnergyModel, batches: Iterable[Tensor]) -> DensityAndSlope:
    """Measure batches of images (B, C, H, W) as the model sees them: scaled, with its noise.

    One forward and one backward pass a batch gives all of it; what a batch needs is freed before
    the next. The model measures in evaluation mode, without which an image's density would
    depend on its batch; afterwards it is in the mode it was in, and its weights have no gradient
    of this.

    Raises:
        InputError: when there is no batch.
    """
    device = next(model.parameters()).device
    with evaluation_mode(model):
        parts = [_measured(model, images_BCHW.to(device)) for images_BCHW in batches]
    if not parts:
        raise InputError("there are no images to measure")
    return DensityAndSlope(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.inference_mode(False)
@torch.enable_grad()
def _measured(model: JointEnergyModel, images_BCHW: Tensor) -> DensityAndSlope:
    images_BCHW = images_BCHW.detach().clone().requires_grad_()
    features_BF = model.trunk(images_BCHW)
    logits_BC, log_density_B = model.heads(features_BF)
    # In evaluation mode no image touches another's density: the sum's gradient is each one's own.
    (slope_BCHW,) = torch.autograd.grad(log_density_B.sum(), [images_BCHW])
    mass_B = -slope_BCHW.double().flatten(1).norm(dim=1)
    said = logits_BC, log_density_B, mass_B, features_BF
    return DensityAndSlope(*(each.detach().cpu() for each in said))


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
