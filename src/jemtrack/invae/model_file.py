"""Save and load a network as one safetensors file, with its shape and vocabulary as JSON metadata.

A file may come from anywhere: its header is held against the network that it describes before a
weight is read, and its weights must be finite.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from jemtrack.data.cells.cells import Vocabulary
from jemtrack.documents import parse_json, refused_if_broken
from jemtrack.errors import InputError
from jemtrack.files import atomic_write
from jemtrack.invae.network import InVAE
from jemtrack.invae.options import InVAEShape
from jemtrack.parameters import build
from jemtrack.shared.hardware import check_memory

_HEADER_KEY = "jemtrack"
_FAMILY = "invae"


class ModelFile(NamedTuple):
    """A loaded file: the network (on the CPU, in evaluation mode), its vocabulary, and notes."""

    network: InVAE
    vocabulary: Vocabulary
    notes: dict[str, str]


def save_model(
    path: Path, network: InVAE, vocabulary: Vocabulary, notes: Mapping[str, str]
) -> None:
    """Write the network atomically; equal content gives equal bytes. `notes` are for readers."""
    header = {
        "family": _FAMILY,
        "shape": dataclasses.asdict(network.shape),
        "vocabulary": vocabulary._asdict(),
        "metadata": dict(notes),
    }
    weights = {name: weight.contiguous() for name, weight in network.state_dict().items()}
    content = save(weights, {_HEADER_KEY: json.dumps(header, sort_keys=True)})
    atomic_write(path, lambda unfinished: unfinished.write_bytes(content))


def load_model(path: Path) -> ModelFile:
    """Load a network that `save_model` wrote; no code in the file is executed.

    Raises:
        InputError: if the file is missing, damaged or no such network.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a model.safetensors of TrainInVAE")
    mend = "write it again with TrainInVAE"
    with refused_if_broken(path, "is damaged, cut short or no network of cells", mend):
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = parse_json(file.metadata()[_HEADER_KEY], path)
            if header["family"] != _FAMILY:
                raise ValueError(f"its family is {header['family']!r}")
            vocabulary = Vocabulary(*(tuple(header["vocabulary"][n]) for n in Vocabulary._fields))
            shape = build(InVAEShape, dict(header["shape"]), f"{path}: shape")
            network = _empty(shape, vocabulary)
            expected = {name: tuple(each.shape) for name, each in network.state_dict().items()}
            found = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
            if expected != found:
                raise ValueError("its weights do not fit its own shape")
            weights = {name: file.get_tensor(name) for name in expected}
        network.load_state_dict(weights, assign=True)
        _check_finite(weights)
    return ModelFile(network.eval(), vocabulary, dict(header["metadata"]))


def load_weights_into(network: InVAE, vocabulary: Vocabulary, path: Path) -> None:
    """Load the weights in the file into `network`; its shape and vocabulary must be the file's.

    Raises:
        InputError: if they differ, or the file is none of such a network.
    """
    file = load_model(path)
    own, other = dataclasses.asdict(network.shape), dataclasses.asdict(file.network.shape)
    differences = [
        f"{name} is {other[name]!r} in the file, {own[name]!r} here"
        for name in own
        if own[name] != other[name] and name != "dropout"
    ]
    differences += [
        f"the {name} are others"
        for name in Vocabulary._fields
        if getattr(vocabulary, name) != getattr(file.vocabulary, name)
    ]
    if differences:
        raise InputError(
            f"{path} holds a network of other cells: {'; '.join(differences)}; "
            "make them equal or choose another file"
        )
    network.load_state_dict(file.network.state_dict())


def build_network(shape: InVAEShape, vocabulary: Vocabulary, label_shares_C: Tensor) -> InVAE:
    """Make a network for the vocabulary, from the global random stream.

    Raises:
        ParameterError: if it cannot be in memory.
    """
    n_weights = len(vocabulary.genes) * shape.hidden * 2 + shape.n_layers * 2 * shape.hidden**2
    check_memory("hidden", shape.hidden, 4 * n_weights)
    return InVAE(shape, len(vocabulary.genes), len(vocabulary.batches), label_shares_C)


def _empty(shape: InVAEShape, vocabulary: Vocabulary) -> InVAE:
    # On the meta device, no initial weights are drawn that would be overwritten at once.
    with torch.device("meta"):
        shares_C = torch.zeros(len(vocabulary.labels))
        return build_network(shape, vocabulary, shares_C)


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    if wrong := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise ValueError(f"its weights must be finite, and {wrong[0]} is not")
