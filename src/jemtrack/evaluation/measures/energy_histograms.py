"""Histograms of the energies of several image sets, in the same bins.

Letters: N images.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

N_BINS = 60
_TAIL = 0.005  # of each set; what lies beyond all of these is in the outermost bins


def energy_histograms(
    log_densities: Mapping[str, np.ndarray], n_bins: int = N_BINS
) -> pd.DataFrame:
    """Count the images of each set by their energy E(x) = -log p~(x).

    Rows by set and bin, with the columns `images` (the set's name), `energy` (the bin's centre),
    `left`, `right` and `share` of the set. The bins are of equal width and the same for all
    sets; the outermost two also hold the few images beyond them. The energies of two models
    cannot be compared: each has its own unknown constant.
    """
    energies = {name: -log_density_N for name, log_density_N in log_densities.items()}
    bounds = [np.quantile(each_N, [_TAIL, 1 - _TAIL]) for each_N in energies.values()]
    low, high = min(each[0] for each in bounds), max(each[1] for each in bounds)
    edges = np.linspace(low, high if high > low else low + 1.0, n_bins + 1)
    parts = []
    for name, energy_N in energies.items():
        counts, _ = np.histogram(energy_N.clip(edges[0], edges[-1]), edges)
        columns = {"energy": (edges[:-1] + edges[1:]) / 2, "left": edges[:-1], "right": edges[1:]}
        parts.append(pd.DataFrame({"images": name, **columns, "share": counts / len(energy_N)}))
    return pd.concat(parts, ignore_index=True)
