"""What a trained network says of cells: their latents, and how likely their counts are.

Letters: N cells, B cells at once, Z latent dimensions, S draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jemtrack.data.cells.cells import UNKNOWN, Cells
from jemtrack.invae.batches import CellBatch, cell_batch
from jemtrack.invae.network import Condition, InVAE, Terms
from jemtrack.shared.evaluation_mode import evaluation_mode
from jemtrack.shared.random_streams import generator

INVAE, SPURIOUS = "X_inVAE", "X_inVAE_spurious"
_AT_ONCE = 1000


class Latents(NamedTuple):
    """The means of the posteriors of z_i and z_s."""

    z_i_NZ: Tensor
    z_s_NZ: Tensor

    def obsm(self) -> dict[str, np.ndarray]:
        """Return what the network has of them, by names for obsm of AnnData."""
        named = {INVAE: self.z_i_NZ.numpy(), SPURIOUS: self.z_s_NZ.numpy()}
        return {name: z_NZ for name, z_NZ in named.items() if z_NZ.shape[1]}


@torch.inference_mode()
def latents(network: InVAE, cells: Cells, *, labels_seen: bool = False) -> Latents:
    """Compute the latents of cells; an encoder that takes labels sees none unless `labels_seen`."""
    of_z_i, of_z_s = network.parts()
    with evaluation_mode(network):
        means = [
            network.encoder(batch.counts.logs(), _seen(batch, labels_seen)).mean_BK.cpu()
            for batch in _batches(network, cells)
        ]
    z_NZ = torch.cat(means)
    return Latents(z_NZ[:, of_z_i], z_NZ[:, of_z_s])


@torch.inference_mode()
def bound_terms(
    network: InVAE, cells: Cells, n_samples: int, seed: int, *, labels_seen: bool = False
) -> Terms:
    """Estimate the terms of the bound of each cell at weight 1, as means over draws of z.

    With its label the prior of a cell is the label's; without, the mixture of all.
    """
    parts: list[list[Tensor]] = []
    with evaluation_mode(network):
        for number, batch in enumerate(_batches(network, cells)):
            stream = generator(seed, "bound", number, device=batch.condition.labels_B.device)
            seen = _seen(batch, labels_seen)
            draws = [
                network.terms(batch.counts, seen, batch.condition, stream) for _ in range(n_samples)
            ]
            parts.append([torch.stack(each).mean(dim=0).cpu() for each in zip(*draws, strict=True)])
    return Terms(*(torch.cat(each) for each in zip(*parts, strict=True)))


@torch.inference_mode()
def log_evidence(
    network: InVAE, cells: Cells, n_samples: int, seed: int, *, labels_seen: bool = False
) -> Tensor:
    """Estimate log p(x) of each cell, (N,), by importance sampling from the posterior.

    The estimate is a lower bound in expectation, above the evidence lower bound, which it is for
    one draw (Burda et al. 2016, https://arxiv.org/abs/1509.00519).
    """
    of_z_i, of_z_s = network.parts()
    parts = []
    with evaluation_mode(network):
        for number, batch in enumerate(_batches(network, cells)):
            stream = generator(seed, "evidence", number, device=batch.condition.labels_B.device)
            posterior = network.encoder(batch.counts.logs(), _seen(batch, labels_seen))
            weights = []
            for _ in range(n_samples):
                z_BZ = posterior.sample(stream)
                likelihood_B = network.log_likelihood(batch.counts, z_BZ, batch.condition.batches_B)
                prior_B = network.prior.log_density(
                    z_BZ[:, of_z_i], z_BZ[:, of_z_s], batch.condition
                )
                weights.append(likelihood_B + prior_B - posterior.log_density(z_BZ))
            parts.append((torch.logsumexp(torch.stack(weights), 0) - math.log(n_samples)).cpu())
    return torch.cat(parts)


def _batches(network: InVAE, cells: Cells) -> Iterator[CellBatch]:
    device = next(network.parameters()).device
    for indices_B in torch.split(torch.arange(len(cells)), _AT_ONCE):
        yield cell_batch(cells, indices_B, device)


def _seen(batch: CellBatch, labels_seen: bool) -> Condition:
    if labels_seen:
        return batch.condition
    return batch.condition.with_labels(torch.full_like(batch.condition.labels_B, UNKNOWN))
