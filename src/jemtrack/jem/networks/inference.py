"""The predictions of a model for a set of images, batch by batch.

An evaluation needs more than these: `jemtrack.jem.scores`. Letters: N images, B batch, C classes,
F features.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jemtrack.data.images import LabelledImages, to_unit_range
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.shared.evaluation_mode import evaluation_mode
from jemtrack.shared.metrics import declare_metric
from jemtrack.shared.random_streams import generator

LOG_DENSITY = declare_metric("log_density")


class Predictions(NamedTuple):
    """Logits (N, C) and log p~(x) (N,) of N images, on the CPU."""

    logits_NC: Tensor
    log_density_N: Tensor


@torch.inference_mode()
def predict(
    model: JointEnergyModel,
    images: LabelledImages,
    *,
    sigma: float,
    seed: int,
    batch_size: int = 500,
) -> Predictions:
    """Classify `images` in evaluation mode, with noise of `sigma` that `seed` determines.

    Neither the device nor `batch_size` changes the noise. Afterwards the model is in the mode
    it was in.
    """
    device, parts = next(model.parameters()).device, []
    with evaluation_mode(model):
        for noisy_BCHW in noisy_batches(images.images_NCHW, sigma, seed, batch_size):
            outputs = model.logits_and_log_density(noisy_BCHW.to(device))
            parts.append([part.cpu() for part in outputs])
    logits, log_densities = zip(*parts, strict=True)
    return Predictions(torch.cat(logits), torch.cat(log_densities))


@torch.inference_mode()
def trunk_features(model: JointEnergyModel, batches: Iterable[Tensor]) -> Tensor:
    """Compute the features (N, F) of batches as the model sees them, on the CPU.

    The model runs in evaluation mode; afterwards it is in the mode it was in.
    """
    device = next(model.parameters()).device
    with evaluation_mode(model):
        return torch.cat([model.trunk(images_BCHW.to(device)).cpu() for images_BCHW in batches])


def noisy_batches(
    images_NCHW: Tensor, sigma: float, seed: int, batch_size: int = 500
) -> Iterator[Tensor]:
    """Yield uint8 images as a model sees them, (B, C, H, W) on the CPU: in [-1, 1], with noise.

    `seed` determines the noise of standard deviation `sigma`; `batch_size` does not change it.
    """
    noise = generator(seed, "evaluation noise")
    for images_BCHW in torch.split(images_NCHW, batch_size):
        yield to_unit_range(images_BCHW.cpu()) + sigma * _noise(images_BCHW.shape, noise)


def _noise(shape: torch.Size, stream: torch.Generator) -> Tensor:
    """Draw noise such that an image's does not depend on the images drawn with it.

    PyTorch draws normal numbers in blocks of 16, so an image takes whole blocks.
    """
    n_pixels = shape[1:].numel()
    noise_BP = torch.randn(shape[0], -(-n_pixels // 16) * 16, generator=stream)
    return noise_BP[:, :n_pixels].reshape(shape)


def validation_metrics(predictions: Predictions, labels_N: Tensor) -> dict[str, float]:
    """Compute accuracy, mean negative log likelihood (nats) and mean log p~(x)."""
    logits_NC, labels_N = predictions.logits_NC, labels_N.cpu()
    return {
        "valid_accuracy": (logits_NC.argmax(1) == labels_N).double().mean().item(),
        "valid_nll": functional.cross_entropy(logits_NC.double(), labels_N).item(),
        f"valid_{LOG_DENSITY}": predictions.log_density_N.double().mean().item(),
    }
