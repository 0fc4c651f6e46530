"""A trained model as a library: classify images, measure their density, draw some.

    model = jemtrack.load_model("nodes/MaxEntropyL2/model.safetensors")
    probabilities = model.predict(images)

Letters: N images, B batch, C channels in `NCHW` and classes in `NC`, H height, W width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.measures.temperature import fit_temperature
from jemtrack.jem.networks import model_file
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.inference import Predictions, noisy_batches
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.sampling.chain_starts import UniformStarts
from jemtrack.jem.sampling.generation import class_samples
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.jem.scores import model_outputs
from jemtrack.parameters import format_value
from jemtrack.shared.evaluation_mode import evaluation_mode
from jemtrack.shared.hardware import DeviceName, chosen_device
from jemtrack.shared.random_streams import generator

_BATCH_SIZE = 500
# Noise may leave the range [-1, 1] of the network; a pixel beyond this is on another scale.
_LARGEST_PIXEL = 2.0
# The Mahalanobis score would need the training images.
_SCORES = ("log_density", "max_probability", "negative_entropy", "approximate_mass")

Images = Tensor | np.ndarray
Labels = Tensor | np.ndarray | Sequence[int]


@dataclass
class TrainedModel:
    """A classifier p(y|x) that is also an unnormalised density p~(x); see `load_model`.

    Images are (N, C, H, W), a tensor or an array: uint8, from 0 to 255; or floats in the network's
    range, [-1, 1], which noise may leave. With `noise_seed`, uint8 images get the noise that the
    model was trained with, as in the stage EvaluateX, where the seed is that of the data. All
    results are on the CPU.

    Attributes:
        network: the PyTorch module.
        shape: of the network; has `channels` and `n_classes`.
        noise_std: standard deviation of the training's noise, in units of pixels in [-1, 1].
        temperature: `predict` divides the logits by it; 1 until `calibrate` fits it.
    """

    network: JointEnergyModel
    shape: WideResNetShape
    noise_std: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the temperature."""
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be > 0, got {format_value(self.temperature)}")

    def predict(self, images: Images, *, noise_seed: int | None = None) -> Tensor:
        """Compute the class probabilities p(y|x), float32 (N, classes).

        Raises:
            InputError: if the images are not as the class describes them.
        """
        return (self._outputs(images, noise_seed).logits_NC / self.temperature).softmax(dim=1)

    def log_density(self, images: Images, *, noise_seed: int | None = None) -> Tensor:
        """Compute log p~(x) in nats, float32 (N,): log p(x) up to a constant of the model.

        Raises:
            InputError: if the images are not as the class describes them.
        """
        return self._outputs(images, noise_seed).log_density_N

    def score(
        self, images: Images, by: str = "log_density", *, noise_seed: int | None = None
    ) -> Tensor:
        """Compute how typical of the training images each is, float64 (N,): outliers have less.

        `by` is log_density, max_probability, negative_entropy or approximate_mass, as
        `ModelOutputs.scores` defines them, without the temperature.

        Raises:
            InputError: if there is no such score, or the images are not as the class describes.
        """
        if by not in _SCORES:
            raise InputError(f"by must be one of {', '.join(_SCORES)}, got {format_value(by)}")

        def no_mahalanobis(features_NF: Tensor) -> Tensor:
            return features_NF.new_zeros(len(features_NF))

        batches = self._batches(images, noise_seed)
        outputs = model_outputs(self.network, batches, no_mahalanobis)
        return torch.from_numpy(outputs.scores()[by])

    def sample(
        self,
        labels: Labels | int,
        size: tuple[int, int],
        *,
        sampler: LangevinSampler | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Draw images of the given classes by Langevin chains on log p~(x, y), as DrawSamples does.

        Args:
            labels: the class of each image, (N,); or N, for all classes in turn.
            size: (H, W) of the images, as of those that the model was trained on.
            sampler: 200 steps that clip pixels to [-1, 1] by default.
            seed: determines where chains start, and their noise.

        Returns:
            The images, uint8 (N, C, H, W), which every method here takes.

        Raises:
            InputError: if a label is not a class of the model, or a side is less than 1.
        """
        labels_N = self._labels(labels)
        if min(size) < 1:
            raise InputError(f"size must be (H, W), each >= 1, got {format_value(size)}")
        starts = UniformStarts(torch.Size((self.shape.channels, *size)))
        start_NCHW = starts(labels_N, generator(seed, "starts of samples"))
        sampler = sampler or LangevinSampler(n_steps=200, pixel_clamp=True)
        return class_samples(self.network, sampler, labels_N, start_NCHW, seed).pixels()

    def calibrate(self, images: Images, labels: Labels, *, noise_seed: int | None = None) -> float:
        """Fit `temperature` on images that the model was not trained on; return it.

        It is the one at which their negative log likelihood is lowest (Guo et al. 2017).

        Raises:
            InputError: if images or labels, (N,), are not as they should be.
        """
        outputs = self._outputs(images, noise_seed)
        fitted = LabelledLogits(outputs.logits_NC, torch.as_tensor(labels))
        self.temperature = fit_temperature(fitted.logits_NC, fitted.labels_N)
        return self.temperature

    @torch.inference_mode()
    def _outputs(self, images: Images, noise_seed: int | None) -> Predictions:
        device, parts = next(self.network.parameters()).device, []
        with evaluation_mode(self.network):
            for images_BCHW in self._batches(images, noise_seed):
                outputs = self.network.logits_and_log_density(images_BCHW.to(device))
                parts.append([part.cpu() for part in outputs])
        logits, log_densities = zip(*parts, strict=True)
        return Predictions(torch.cat(logits), torch.cat(log_densities))

    def _batches(self, images: Images, noise_seed: int | None) -> Iterator[Tensor]:
        """Yield checked images as the network sees them, float32 (B, C, H, W)."""
        if isinstance(images, np.ndarray):
            images = np.ascontiguousarray(images)  # PyTorch takes no flipped view
        images_NCHW = torch.as_tensor(images)
        expected = f"(N, {self.shape.channels}, H, W)"
        if images_NCHW.ndim != 4 or images_NCHW.shape[1] != self.shape.channels:
            raise InputError(f"images must be {expected}, got shape {tuple(images_NCHW.shape)}")
        if not images_NCHW.numel():
            raise InputError(f"images must have pixels, got shape {tuple(images_NCHW.shape)}")
        if images_NCHW.dtype == torch.uint8:
            sigma = 0.0 if noise_seed is None else self.noise_std
            return noisy_batches(images_NCHW, sigma, noise_seed or 0, _BATCH_SIZE)
        if not images_NCHW.is_floating_point():
            raise InputError(f"images must be uint8 or floats, got {images_NCHW.dtype}")
        if noise_seed is not None:
            raise InputError("noise_seed is for uint8 images: add noise to floats yourself")
        if not images_NCHW.abs().max() <= _LARGEST_PIXEL:
            raise InputError("images of floats must be in [-1, 1]: pass 0 to 255 as uint8")
        return iter(torch.split(images_NCHW.float(), _BATCH_SIZE))

    def _labels(self, labels: Labels | int) -> Tensor:
        """Check classes, or draw up as many as `labels` says; int64 (N,)."""
        n_classes = self.shape.n_classes
        if isinstance(labels, int):
            labels = torch.arange(max(labels, 0)) % n_classes
        labels_N = torch.as_tensor(labels)
        fits = labels_N.ndim == 1 and len(labels_N) and not labels_N.is_floating_point()
        if not (fits and labels_N.min() >= 0 and labels_N.max() < n_classes):
            raise InputError(
                f"labels must be N >= 1 or whole numbers from 0 to {n_classes - 1}, (N,), "
                f"got {format_value(labels)}"
            )
        return labels_N.long()


def load_model(
    path: str | PathLike[str], *, device: DeviceName = "auto", temperature: float = 1.0
) -> TrainedModel:
    """Load the `model.safetensors` of a trainer; no code in the file is executed.

    Args:
        path: the file, such as nodes/MaxEntropyL2/model.safetensors.
        device: auto is a GPU if there is one, else the CPU.
        temperature: of the class probabilities, such as `temperature` in the table of measures
            of EvaluateX; `TrainedModel.calibrate` fits it.

    Raises:
        InputError: if the file is missing, damaged or not a jemtrack model, there is no such
            device, or the temperature is not > 0.
    """
    path = Path(path)
    network, shape, metadata = model_file.load_model(path)
    noise_std = model_file.trained_noise(path, metadata)
    return TrainedModel(network.to(chosen_device(device)), shape, noise_std, temperature)
