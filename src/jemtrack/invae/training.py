"""From parameters, cells and a recipe to a network and the phases that train it.

Letters: C labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from jemtrack.data.cells.cells import CellSplits
from jemtrack.errors import InputError, ParameterError
from jemtrack.invae.batches import CellBatches
from jemtrack.invae.inference import bound_terms
from jemtrack.invae.model_file import build_network, load_weights_into, shape_of
from jemtrack.invae.network import InVAE
from jemtrack.invae.objective import KL_I, KL_S, RECONSTRUCTION, NegativeElbo
from jemtrack.invae.options import NETWORK, InVAEBatchArgs, InVAEShape
from jemtrack.shared.metrics import Metric
from jemtrack.shared.random_streams import stream_seed
from jemtrack.train.phase import Batches, Models, Objective, Validation
from jemtrack.train.recipe import Recipe

if TYPE_CHECKING:
    from jemtrack.invae.family import InVAEStep


def check_data(model: InVAEShape, settings: Any, data: CellSplits) -> None:
    """Check the parameters against each other and against the cells.

    Raises:
        InputError: if there are no training cells.
        ParameterError: if they do not fit.
    """
    if settings.processes > 1:
        raise ParameterError(
            f"processes must be 1, for the sparse counts of a batch are not sharded, "
            f"got {settings.processes}"
        )
    if not (n_cells := len(data.train)):
        raise InputError(f"the data set {data.dataset!r} has no training cells; check its split")
    n_batches = -(-n_cells // settings.batch_size)
    if model.norm == "batch" and n_cells // n_batches < 2:
        raise ParameterError(
            f"norm must be layer or none for batches of one cell, got {model.norm!r}; there are "
            f"{n_cells} training cells, in batches of at most {settings.batch_size} (batch_size)"
        )
    if settings.label_dropout and not model.labels_in_encoder:
        raise ParameterError(
            f"label_dropout must be 0 without labels_in_encoder, got {settings.label_dropout}"
        )


def initial_network(model: InVAEShape, data: CellSplits, start: Path | None) -> InVAE:
    """Make the network, from the file `start` or else from the global random stream.

    Raises:
        InputError: if the file holds no network of this shape and these cells.
    """
    network = build_network(shape_of(model), data.vocabulary, label_shares(data))
    if start:
        load_weights_into(network, data.vocabulary, start)
    return network


def label_shares(data: CellSplits) -> Tensor:
    """Return the share of each label among the labelled training cells, (C,)."""
    labels_N = data.train.labels_N[data.train.labels_N >= 0]
    counts_C = np.bincount(labels_N, minlength=len(data.vocabulary.labels))
    return torch.from_numpy(counts_C / max(counts_C.sum(), 1)).float()


def phase_parts(
    recipe: Recipe, settings: InVAEBatchArgs, data: CellSplits, device: torch.device
) -> Iterator[tuple[Objective, Batches, Validation | None]]:
    """Yield objective, batches on `device` and validation of each step of a recipe."""
    validation = _validation(settings, data)
    for number, step in enumerate(cast("tuple[InVAEStep, ...]", recipe.steps)):
        # Each step has an order and noise of its own; the first one's is the ordinary training's.
        seed = stream_seed(data.seed, "step", step.name) if number else data.seed
        batches = CellBatches(data.train, settings.batch_size, seed, device)
        n_batches = min(len(batches), step.max_steps or len(batches))
        warmup_steps = step.kl_warmup_epochs * n_batches
        yield NegativeElbo(step, warmup_steps, settings.label_dropout), batches, validation


def _validation(settings: InVAEBatchArgs, data: CellSplits) -> Validation | None:
    """Measure the bound of the validation cells at the weight 1, whatever that of training is."""
    if len(data.valid) == 0:
        return None

    def measure(models: Models) -> dict[str, float]:
        network = cast(InVAE, models[NETWORK])
        terms = bound_terms(
            network, data.valid, settings.valid_samples, data.seed, labels_seen=True
        )
        named = {RECONSTRUCTION: terms.reconstruction_B, KL_I: terms.kl_i_B, KL_S: terms.kl_s_B}
        means = {f"valid_{name}": each.double().mean().item() for name, each in named.items()}
        return {str(Metric.VALID_LOSS): -terms.bound.double().mean().item(), **means}

    return Validation(measure, settings.eval_every)
