"""What a model computes for a set of images: measured by all, kept in one file.

Letters: N images, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.torch import load, save
from torch import Tensor

from jemtrack.documents import refused_if_broken
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.inputs import check_logits

SCORES = ("log_density", "max_probability", "negative_entropy", "approximate_mass", "mahalanobis")


@dataclass(frozen=True)
class ModelOutputs:
    """Of N images: logits (N, C), log p~(x), approximate mass and Mahalanobis score (N,).

    Raises:
        InputError: when there is no image, the fields do not fit together, a logit is not finite
            or another value is NaN.
    """

    logits_NC: Tensor
    log_density_N: Tensor
    approximate_mass_N: Tensor
    mahalanobis_N: Tensor

    def __post_init__(self) -> None:
        """Check all fields, and move them to the CPU."""
        check_logits(self.logits_NC)
        n_images = len(self.logits_NC)
        for name, values in self.tensors().items():
            if name != "logits_NC" and values.shape != (n_images,):
                raise InputError(
                    f"{name} must be one number an image, got shape {tuple(values.shape)} for "
                    f"{n_images} images"
                )
            if values.isnan().any():
                raise InputError(f"{name} must be numbers, got NaN: the model has diverged")
            vars(self)[name] = values.detach().cpu().contiguous()

    def scores(self) -> dict[str, np.ndarray]:
        """Compute the `SCORES` of each image, float64 (N,): higher is more typical of training.

        `log_density` is log p~(x) (Liu et al., "Energy-based Out-of-distribution Detection",
        2020); `max_probability` the highest class probability, 1/C to 1 (Hendrycks and Gimpel, "A
        Baseline for Detecting Misclassified and Out-of-Distribution Examples", 2017);
        `negative_entropy` that of the class probabilities, in nats, -log C to 0.
        """
        log_probabilities_NC = self.logits_NC.double().log_softmax(dim=1)
        probabilities_NC = log_probabilities_NC.exp()
        scores_N = (
            self.log_density_N,
            probabilities_NC.max(dim=1).values,
            (probabilities_NC * log_probabilities_NC).sum(dim=1),
            self.approximate_mass_N,
            self.mahalanobis_N,
        )
        return {name: each.double().numpy() for name, each in zip(SCORES, scores_N, strict=True)}

    def tensors(self) -> dict[str, Tensor]:
        """List the fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class StoredOutputs(NamedTuple):
    """The outputs of each model for the same N images, and their labels (N,)."""

    outputs: dict[str, ModelOutputs]
    labels_N: Tensor


_LABELS = "labels"


def save_outputs(outputs: Mapping[str, ModelOutputs], labels_N: Tensor, path: Path) -> None:
    """Write a safetensors file; equal outputs make equal bytes."""
    tensors = {_LABELS: labels_N.cpu().contiguous()}
    for model, each in outputs.items():
        tensors |= {f"{model}/{name}": values for name, values in each.tensors().items()}
    path.write_bytes(save(tensors))


def load_outputs(content: bytes, where: str) -> StoredOutputs:
    """Read what `save_outputs` wrote, models in alphabetical order; `where` names it in an error.

    Raises:
        InputError: when it is broken or something else.
    """
    with refused_if_broken(f"{where}:", "is not a whole file of models' outputs", "make it again"):
        tensors = load(content)
        labels_N = tensors.pop(_LABELS)
        models = sorted({name.partition("/")[0] for name in tensors})
        outputs = {
            model: ModelOutputs(*(tensors[f"{model}/{each.name}"] for each in fields(ModelOutputs)))
            for model in models
        }
    return StoredOutputs(outputs, labels_N)
