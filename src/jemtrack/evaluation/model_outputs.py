"""What a model said of a set of images: computed once, measured by all, kept in one file.

Letters: N images, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.outlier_scores import outlier_scores

SCORES = ("log_density", "max_probability", "negative_entropy", "approximate_mass", "mahalanobis")


@dataclass(frozen=True)
class ModelOutputs:
    """Of N images: logits (N, C), log p~(x), approximate mass and Mahalanobis score (N,)."""

    logits_NC: Tensor
    log_density_N: Tensor
    approximate_mass_N: Tensor
    mahalanobis_N: Tensor

    def scores(self) -> dict[str, Tensor]:
        """Give the `SCORES` of each image, (N,): higher is more alike to the training images."""
        found = outlier_scores(self.logits_NC, self.log_density_N)
        measured = {"approximate_mass": self.approximate_mass_N, "mahalanobis": self.mahalanobis_N}
        return {**found, **{name: each.detach().cpu().double() for name, each in measured.items()}}


@dataclass(frozen=True)
class Look:
    """What one model said of all image sets of an evaluation.

    Attributes:
        measured: the labelled images that the measures are of.
        train: some of the training images.
        valid_logits_NC: of the validation images, the logits alone; None where there are none.
        outliers: by partner, images that no model was trained on.
    """

    measured: ModelOutputs
    train: ModelOutputs
    valid_logits_NC: Tensor | None
    outliers: Mapping[str, ModelOutputs]


_LABELS = "labels"
_FIELDS = ("logits_NC", "log_density_N", "approximate_mass_N", "mahalanobis_N")


class StoredOutputs(NamedTuple):
    """By model, what it said of N images, and their labels (N,)."""

    outputs: dict[str, ModelOutputs]
    labels_N: Tensor


def save_outputs(outputs: Mapping[str, ModelOutputs], labels_N: Tensor, path: Path) -> None:
    """Write a safetensors file; equal outputs make equal bytes."""
    tensors = {_LABELS: labels_N.cpu().contiguous()}
    for model, said in outputs.items():
        for name in _FIELDS:
            tensors[f"{model}/{name}"] = getattr(said, name).detach().cpu().contiguous()
    path.write_bytes(save(tensors))


def load_outputs(content: bytes, where: str) -> StoredOutputs:
    """Read what `save_outputs` wrote, models in alphabetical order; `where` names it in an error.

    Raises:
        InputError: when it is broken or something else.
    """
    try:
        tensors = load(content)
        labels_N = tensors.pop(_LABELS)
        models = sorted({name.partition("/")[0] for name in tensors})
        outputs = {
            model: ModelOutputs(*(tensors[f"{model}/{name}"] for name in _FIELDS))
            for model in models
        }
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{where}: is no whole file of models' outputs ({error})") from error
    return StoredOutputs(outputs, labels_N)
