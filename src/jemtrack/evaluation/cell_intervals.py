"""Intervals of measures of embeddings, over which cells were measured.

The bootstrap draws cells twice, which are then each other's nearest neighbours: subsets it is.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

_SHARE = 0.8  # of the cells in a subset
_QUANTILE = 1.96  # of the normal distribution, for 95%


def subset_scores(
    measure: Callable[[np.ndarray], Mapping[str, float]], n_cells: int, n_subsets: int, seed: int
) -> pd.DataFrame:
    """Measure random subsets of cells, which `measure` is given the indices of; a row for each.

    With equal seeds and numbers of cells, the subsets are equal.
    """
    random = np.random.default_rng(seed)
    size = round(_SHARE * n_cells)
    drawn = [np.sort(random.choice(n_cells, size, replace=False)) for _ in range(n_subsets)]
    return pd.DataFrame([measure(subset) for subset in drawn])


def half_widths(subsets: pd.DataFrame) -> dict[str, float]:
    """Return half the width of each column's interval at 95%.

    It is the delete-d jackknife (Shao and Wu 1989): the variance over subsets of m of n cells,
    times m / (n - m).
    """
    deviations = np.sqrt(_SHARE / (1 - _SHARE) * subsets.var(ddof=0))
    return {str(name): _QUANTILE * value for name, value in deviations.items()}
