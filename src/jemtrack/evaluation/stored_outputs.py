"""What models said of the same labelled images, in one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jemtrack.errors import InputError
from jemtrack.evaluation.model_outputs import ModelOutputs

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
