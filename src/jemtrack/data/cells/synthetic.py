"""Synthetic cells: negative binomial counts whose types and batches are known.

Letters: N cells, G genes, T types, B batches, K dimensions of the state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from jemtrack.parameters import AtLeastOne, NotNegative, Positive, parameters

if TYPE_CHECKING:
    from anndata import AnnData

_AT_ONCE = 1000  # cells whose means are in memory
_STATES = 5


@parameters
class SyntheticCells:
    """Cells of types that differ in a low-dimensional state, in batches that shift every gene.

    Attributes:
        n_cells: number of cells.
        n_genes: number of genes.
        n_types: number of cell types; each is half as frequent as the one before it, at least 1%.
            The last is in the first batch alone.
        n_batches: number of batches; each has cells of other depth.
        counts_per_cell: mean number of counts in a cell of the first batch.
        type_spread: standard deviation of a type's effect on the log mean of a gene.
        batch_spread: that of a batch's effect.
        dispersion: inverse dispersion of the negative binomial distribution.
        seed: of all that is drawn.
    """

    n_cells: AtLeastOne = 2000
    n_genes: AtLeastOne = 3000
    n_types: AtLeastOne = 5
    n_batches: AtLeastOne = 3
    counts_per_cell: Positive = 2000.0
    type_spread: NotNegative = 0.7
    batch_spread: NotNegative = 0.5
    dispersion: Positive = 2.0
    seed: int = 1

    def draw(self) -> AnnData:
        """Draw the cells: counts in X, `batch` and `cell_type` in obs, the state in obsm."""
        import pandas as pd
        from anndata import AnnData

        random = np.random.default_rng(self.seed)
        batches_N = random.integers(self.n_batches, size=self.n_cells)
        types_N = self._types(batches_N, random)
        centres_TK = random.normal(size=(self.n_types, _STATES))
        states_NK = centres_TK[types_N] + random.normal(0, 0.3, size=(self.n_cells, _STATES))
        names = [f"cell{number}" for number in range(self.n_cells)]
        obs = pd.DataFrame(
            {
                "batch": pd.Categorical([f"batch{each + 1}" for each in batches_N]),
                "cell_type": pd.Categorical([f"type{each + 1}" for each in types_N]),
            },
            index=names,
        )
        genes = pd.DataFrame(index=[f"gene{number}" for number in range(self.n_genes)])
        counts_NG = self._counts(states_NK, batches_N, random)
        return AnnData(counts_NG, obs=obs, var=genes, obsm={"X_true": states_NK})

    def _types(self, batches_N: np.ndarray, random: np.random.Generator) -> np.ndarray:
        shares_T = np.maximum(0.5 ** np.arange(self.n_types), 0.01)
        types_N = random.choice(self.n_types, size=self.n_cells, p=shares_T / shares_T.sum())
        if self.n_batches > 1:
            types_N[(types_N == self.n_types - 1) & (batches_N > 0)] = 0
        return types_N

    def _counts(
        self, states_NK: np.ndarray, batches_N: np.ndarray, random: np.random.Generator
    ) -> sparse.csr_matrix:
        """Draw counts as a mixture of Poisson distributions over Gamma-distributed rates."""
        spread = self.type_spread / np.sqrt(_STATES)
        loadings_KG = random.normal(0, spread, size=(_STATES, self.n_genes))
        base_G = random.normal(0, 1.5, size=self.n_genes)
        shifts_BG = random.normal(0, self.batch_spread, size=(self.n_batches, self.n_genes))
        depth_B = self.counts_per_cell * 1.5 ** -np.arange(self.n_batches)
        depth_N = depth_B[batches_N] * random.lognormal(0, 0.3, size=self.n_cells)
        parts = []
        for first in range(0, self.n_cells, _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            log_means_NG = base_G + states_NK[part] @ loadings_KG + shifts_BG[batches_N[part]]
            means_NG = np.exp(log_means_NG - log_means_NG.max(axis=1, keepdims=True))
            means_NG *= (depth_N[part] / means_NG.sum(axis=1))[:, None]
            rates_NG = random.gamma(self.dispersion, means_NG / self.dispersion)
            parts.append(sparse.csr_matrix(random.poisson(rates_NG).astype(np.int32)))
        return sparse.vstack(parts, format="csr")
