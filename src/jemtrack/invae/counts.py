"""Counts of a batch of cells in sparse rows, and their likelihood.

Letters: B cells, G genes, M counts that are not zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

_SCALE = 1e4  # counts of a cell on the scale of the normal likelihood


@dataclass(frozen=True)
class SparseCounts:
    """The counts of B cells that are not zero: values, and where they are in a (B, G) matrix.

    Attributes:
        values_M: float counts, by cell.
        lengths_B: how many of them each cell has.
        places_M: positions in the flattened (B, G) matrix.
        totals_B: sums of the rows, at least 1, so that a cell without counts has a logarithm.
        n_genes: G.
    """

    values_M: Tensor
    lengths_B: Tensor
    places_M: Tensor
    totals_B: Tensor
    n_genes: int

    @classmethod
    def of(cls, rows_BG: sparse.csr_matrix, device: torch.device) -> SparseCounts:
        """Take rows of a matrix of counts, whose indices are sorted."""
        n_cells, n_genes = rows_BG.shape
        lengths_B = np.diff(rows_BG.indptr).astype(np.int64)
        cells_M = np.repeat(np.arange(n_cells), lengths_B)
        totals_B = np.asarray(rows_BG.sum(axis=1), dtype=np.float32).ravel()

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            values_M=tensor(rows_BG.data.astype(np.float32)),
            lengths_B=tensor(lengths_B),
            places_M=tensor(cells_M * n_genes + rows_BG.indices),
            totals_B=tensor(np.maximum(totals_B, 1)),
            n_genes=n_genes,
        )

    def dense(self, values_M: Tensor) -> Tensor:
        """Put values in the places of the counts into a (B, G) matrix of zeros."""
        dense_BG = values_M.new_zeros(len(self.totals_B), self.n_genes)
        dense_BG.view(-1)[self.places_M] = values_M
        return dense_BG

    def logs(self) -> Tensor:
        """Compute log(1 + count), (B, G): what an encoder sees."""
        return self.dense(self.values_M.log1p())

    def sum(self, values_M: Tensor) -> Tensor:
        """Sum values in the places of the counts cell by cell, (B,)."""
        # Unlike `index_add`, it adds in one order on every device.
        summed_B: Tensor = torch.segment_reduce(values_M, "sum", lengths=self.lengths_B)
        return summed_B


class Decoded(NamedTuple):
    """What a decoder says of a batch.

    Attributes:
        logits_BG: of each gene's share of a cell's counts; the mean, of a normal distribution.
        log_dispersion_BG: logs of the inverse dispersion; of the variance, of a normal one.
        zero_logits_BG: logits of the probability that a count is zero whatever its mean is.
    """

    logits_BG: Tensor
    log_dispersion_BG: Tensor
    zero_logits_BG: Tensor | None = None


def log_likelihood(
    counts: SparseCounts, decoded: Decoded, kind: Literal["nb", "zinb", "normal"]
) -> Tensor:
    """Compute log p(x given z) of each cell, (B,), in nats."""
    if kind == "normal":
        return _normal(counts, decoded)
    return _negative_binomial(counts, decoded)


def _negative_binomial(counts: SparseCounts, decoded: Decoded) -> Tensor:
    """Compute the log likelihood of counts with mean mu and inverse dispersion theta.

    With d = log mu - log theta, that of a zero is -theta softplus(d). A count x adds
    lgamma(x + theta) - lgamma(theta) - lgamma(x + 1) - x softplus(-d), so that the costly
    functions are evaluated where counts are. Inflated zeros: Lopez et al. 2018, eq. 5, as in scVI.
    """
    log_means_BG = decoded.logits_BG.log_softmax(dim=1) + counts.totals_B.log()[:, None]
    difference_BG = log_means_BG - decoded.log_dispersion_BG
    theta_BG = decoded.log_dispersion_BG.exp().expand_as(difference_BG)
    zeros_BG = -theta_BG * softplus(difference_BG)
    theta_M = theta_BG.reshape(-1)[counts.places_M]
    difference_M = difference_BG.reshape(-1)[counts.places_M]
    values_M = counts.values_M
    added_M = (
        torch.lgamma(values_M + theta_M)
        - torch.lgamma(theta_M)
        - torch.lgamma(values_M + 1)
        - values_M * softplus(-difference_M)
    )
    if decoded.zero_logits_BG is not None:
        logits_BG = decoded.zero_logits_BG
        # A zero is inflated, or one of the distribution; any other count is of the distribution.
        observed_BG = logsigmoid(-logits_BG) + zeros_BG
        zeros_BG = torch.logaddexp(logsigmoid(logits_BG), observed_BG)
        added_M = added_M + (observed_BG - zeros_BG).reshape(-1)[counts.places_M]
    return zeros_BG.sum(dim=1) + counts.sum(added_M)


def _normal(counts: SparseCounts, decoded: Decoded) -> Tensor:
    # With the size of the result, the CPU need not ask the GPU for it.
    n_counts = len(counts.values_M)
    totals_M = counts.totals_B.repeat_interleave(counts.lengths_B, output_size=n_counts)
    targets_BG = counts.dense((_SCALE * counts.values_M / totals_M).log1p())
    return gaussian_log_density(targets_BG, decoded.logits_BG, decoded.log_dispersion_BG)


def gaussian_log_density(x_BK: Tensor, mean_BK: Tensor, log_variance_BK: Tensor) -> Tensor:
    """Compute the log density of normal distributions, summed over the last dimension."""
    squares_BK = (x_BK - mean_BK).square() * (-log_variance_BK).exp()
    return -0.5 * (squares_BK + log_variance_BK + math.log(2 * math.pi)).sum(dim=-1)
