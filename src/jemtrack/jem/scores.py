"""Run trained models over the image sets of an evaluation, and compute their approximate mass.

The approximate mass tells how flat the density is around an image. Grathwohl et al.
2020 (https://arxiv.org/abs/1912.03263), section 5.3: an image may be dense and yet have little
probability around it, as the density falls off steeply on all sides. The score is
-||d log p~(x) / dx||, the Euclidean norm over all pixels; it is 0 at a flat mode, and higher is
more typical of the training images.

Letters: N images, B batch, C channels in `BCHW` and classes in `logits_NC`, F features.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from jemtrack.data.images import LabelledImages
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.mahalanobis import Mahalanobis
from jemtrack.evaluation.models.model_outputs import ModelOutputs
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.inference import noisy_batches, trunk_features
from jemtrack.jem.networks.model_file import load_model, trained_noise
from jemtrack.shared.evaluation_mode import evaluation_mode
from jemtrack.shared.progress import track


def run_models(
    paths: Iterable[Path],
    sets: Mapping[str, Tensor],
    train: LabelledImages,
    *,
    noise: bool,
    seed: int,
    batch_size: int,
    device: torch.device,
) -> dict[str, dict[str, ModelOutputs]]:
    """Compute the outputs of each model for each image set, with a progress bar over models.

    Args:
        paths: the model files; a file's folder is the model's name in the result.
        sets: uint8 images (N, C, H, W), by name.
        train: the training images that the Mahalanobis score measures distances to.
        noise: whether to add the noise that the model was trained with.
        seed: of the noise.
        batch_size: images in one pass; changes the speed and the memory alone.
        device: where to compute.

    Raises:
        InputError: when a model file is broken, or a model has diverged.
    """
    outputs = {}
    for path in track([*paths], "Running the models"):
        model, _, notes = load_model(path)
        model.to(device)
        sigma = trained_noise(path, notes) if noise else 0.0
        try:
            outputs[path.parent.name] = image_set_outputs(
                model, sets, train, sigma=sigma, seed=seed, batch_size=batch_size
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return outputs


def image_set_outputs(
    model: JointEnergyModel,
    sets: Mapping[str, Tensor],
    train: LabelledImages,
    *,
    sigma: float,
    seed: int,
    batch_size: int,
) -> dict[str, ModelOutputs]:
    """Compute the outputs of a model for each image set; see `run_models`.

    Raises:
        InputError: when the model has diverged.
    """

    def batches(images_NCHW: Tensor) -> Iterable[Tensor]:
        return noisy_batches(images_NCHW, sigma, seed, batch_size)

    mahalanobis = Mahalanobis(trunk_features(model, batches(train.images_NCHW)), train.labels_N)
    return {
        name: model_outputs(model, batches(images_NCHW), mahalanobis)
        for name, images_NCHW in sets.items()
    }


def model_outputs(
    model: JointEnergyModel, batches: Iterable[Tensor], score_features: Callable[[Tensor], Tensor]
) -> ModelOutputs:
    """Compute the outputs for batches of images (B, C, H, W) as the model sees them.

    One forward and one backward pass a batch computes all of it; what a batch needs is freed
    before the next. `score_features` maps the features (N, F) to the Mahalanobis score (N,). The
    model runs in evaluation mode, without which an image's density would depend on its batch;
    afterwards it is in the mode it was in, and its weights have no gradient of this.

    Raises:
        InputError: when there is no batch, or the model has diverged.
    """
    device = next(model.parameters()).device
    with evaluation_mode(model):
        parts = [_with_gradient(model, images_BCHW.to(device)) for images_BCHW in batches]
    if not parts:
        raise InputError("there are no images to measure")
    logits_NC, log_density_N, mass_N, features_NF = map(torch.cat, zip(*parts, strict=True))
    return ModelOutputs(logits_NC, log_density_N, mass_N, score_features(features_NF))


@torch.inference_mode(False)
@torch.enable_grad()
def _with_gradient(model: JointEnergyModel, images_BCHW: Tensor) -> tuple[Tensor, ...]:
    """Compute logits, log density, approximate mass and features of a batch, on the CPU."""
    images_BCHW = images_BCHW.detach().clone().requires_grad_()
    features_BF = model.trunk(images_BCHW)
    logits_BC, log_density_B = model.heads(features_BF)
    # In evaluation mode no image touches another's density: the sum's gradient is each one's own.
    (gradient_BCHW,) = torch.autograd.grad(log_density_B.sum(), [images_BCHW])
    mass_B = -gradient_BCHW.double().flatten(1).norm(dim=1)
    return tuple(each.detach().cpu() for each in (logits_BC, log_density_B, mass_B, features_BF))
