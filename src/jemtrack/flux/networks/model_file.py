"""Save and load the networks of a training as one file; see `jemtrack.shared.model_file`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from jemtrack.errors import ParameterError
from jemtrack.flux.networks.autoencoder import Compressor, Expander
from jemtrack.flux.networks.discriminator import Discriminator
from jemtrack.flux.networks.flow_processor import FlowProcessor
from jemtrack.flux.networks.shape import FluxSizes
from jemtrack.flux.networks.text_encoder import TextEncoder
from jemtrack.shared.hardware import check_memory
from jemtrack.shared.model_file import describe_model, read_weights, write_model

_CLASSES: Mapping[str, Callable[[FluxSizes], nn.Module]] = {
    "compressor": Compressor,
    "expander": Expander,
    "flow_processor": FlowProcessor,
    "text_encoder": TextEncoder,
    "discriminator": Discriminator,
}
# The parameter by which each network grows.
_GROWS_BY = {
    "compressor": "vae_dim",
    "expander": "vae_dim",
    "flow_processor": "feature_maps_dim",
    "text_encoder": "text_embedding_dim",
}


class FluxFile(NamedTuple):
    """A loaded file: its networks (on the CPU, in evaluation mode), sizes and metadata."""

    models: dict[str, nn.Module]
    sizes: FluxSizes
    metadata: dict[str, str]


def make_network(name: str, sizes: FluxSizes) -> nn.Module:
    """Make one of the networks; it draws from the global random stream."""
    return _CLASSES[name](sizes)


def check_sizes(sizes: FluxSizes) -> None:
    """Check that the networks can be in memory.

    Raises:
        ParameterError: if they cannot, with the bytes that they would take.
    """
    with torch.device("meta"):
        networks = {name: make_network(name, sizes) for name in _GROWS_BY}
    for name, field in _GROWS_BY.items():
        n_weights = sum(weight.numel() for weight in networks[name].parameters())
        check_memory(field, getattr(sizes, field), 4 * n_weights)


def save_models(
    path: Path, models: Mapping[str, nn.Module], sizes: FluxSizes, metadata: Mapping[str, str]
) -> None:
    """Write the networks that `sizes` describe atomically; equal content gives equal bytes.

    Layers of the models that these sizes do not have are left out.
    """
    with torch.device("meta"):
        names = _made(sizes).state_dict()
    weights = nn.ModuleDict({name: models[name] for name in sizes.models}).state_dict()
    write_model(path, {name: weights[name] for name in names}, sizes, metadata)


def load_models(path: Path) -> FluxFile:
    """Load the networks that `save_models` wrote; no code in the file is executed.

    Raises:
        InputError: if the file is missing, damaged or of another family.
    """
    models, sizes, metadata = describe_model(path, FluxSizes, _checked)
    models.load_state_dict(read_weights(path), assign=True)
    return FluxFile(dict(cast(Iterable[tuple[str, nn.Module]], models.eval().items())),
                    sizes, metadata)  # fmt: skip


def starting_networks(path: Path, sizes: FluxSizes) -> dict[str, nn.Module]:
    """Load those of the networks that `sizes` describe from which a training is to start.

    Raises:
        ParameterError: if they are of other sizes; a file without SPADE serves one with it.
    """
    file = load_models(path)
    other = replace(cast(Any, file.sizes), models=sizes.models, spade=sizes.spade)
    if other != sizes or file.sizes.spade > sizes.spade:
        names = [each.name for each in fields(cast(Any, sizes)) if each.name != "models"]
        unlike = [name for name in names if getattr(file.sizes, name) != getattr(sizes, name)]
        raise ParameterError(
            f"load_path must be a model of the sizes of this training, but {', '.join(unlike)} of "
            f"{path} differ"
        )
    return {name: file.models[name] for name in sizes.models if name in file.models}


def _made(sizes: FluxSizes) -> nn.ModuleDict:
    return nn.ModuleDict({name: make_network(name, sizes) for name in sizes.models})


def _checked(sizes: FluxSizes) -> nn.ModuleDict:
    check_sizes(sizes)
    return _made(sizes)
