"""Save and load a network as one file, with its shape and the names of its vocabulary."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from jemtrack.data.cells.cells import Vocabulary
from jemtrack.errors import InputError
from jemtrack.invae.network import InVAE
from jemtrack.invae.options import InVAEShape
from jemtrack.parameters import FROM_LIST, parameter_names, parameters
from jemtrack.shared.hardware import check_memory
from jemtrack.shared.model_file import describe_model, read_weights, write_model


@parameters
class InVAEFile(InVAEShape):
    """What a file says of its network: the shape, and the names of genes, batches and labels."""

    genes: Annotated[tuple[str, ...], FROM_LIST]
    batches: Annotated[tuple[str, ...], FROM_LIST]
    labels: Annotated[tuple[str, ...], FROM_LIST]

    @property
    def vocabulary(self) -> Vocabulary:
        """The names, in the order of their codes."""
        return Vocabulary(self.genes, self.batches, self.labels)


class ModelFile(NamedTuple):
    """A loaded file: the network (on the CPU, in evaluation mode), its vocabulary, and notes."""

    network: InVAE
    vocabulary: Vocabulary
    notes: dict[str, str]


def save_model(
    path: Path, network: InVAE, vocabulary: Vocabulary, notes: Mapping[str, str]
) -> None:
    """Write the network atomically; equal content gives equal bytes. `notes` are for readers."""
    described = InVAEFile(**dataclasses.asdict(network.shape), **vocabulary._asdict())
    write_model(path, network.state_dict(), described, notes)


def load_model(path: Path) -> ModelFile:
    """Load a network that `save_model` wrote; no code in the file is executed.

    Raises:
        InputError: if the file is missing, damaged or no such network.
    """
    network, described, notes = describe_model(path, InVAEFile, _of_file)
    network.load_state_dict(read_weights(path), assign=True)
    return ModelFile(network.eval(), described.vocabulary, notes)


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


def shape_of(parameters: InVAEShape) -> InVAEShape:
    """Return the shape alone, without what a subclass adds to it."""
    names = parameter_names(InVAEShape)
    return InVAEShape(**{name: getattr(parameters, name) for name in names})


def build_network(shape: InVAEShape, vocabulary: Vocabulary, label_shares_C: Tensor) -> InVAE:
    """Make a network for the vocabulary, from the global random stream.

    Raises:
        ParameterError: if it cannot be in memory.
    """
    _without_weights(shape, vocabulary)
    return InVAE(shape, len(vocabulary.genes), len(vocabulary.batches), label_shares_C)


def _without_weights(shape: InVAEShape, vocabulary: Vocabulary) -> InVAE:
    """Make a network that takes no memory, if one with weights can be in memory."""
    with torch.device("meta"):
        shares_C = torch.zeros(len(vocabulary.labels))
        network = InVAE(shape, len(vocabulary.genes), len(vocabulary.batches), shares_C)
    n_weights = sum(weight.numel() for weight in network.parameters())
    check_memory("hidden", shape.hidden, 4 * n_weights)
    return network


def _of_file(described: InVAEFile) -> InVAE:
    return _without_weights(shape_of(described), described.vocabulary)
