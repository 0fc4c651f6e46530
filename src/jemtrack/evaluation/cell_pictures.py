"""Pictures of embeddings of cells: a row for each, coloured by batch and by type.

Letters: N cells, D dimensions.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from jemtrack.data.cells.cells import BATCH, LABEL

_COLUMNS = {BATCH: "by batch", LABEL: "by type"}
_UNKNOWN = "#bbbbbb"
_MOST_NAMES = 20  # that a legend has room for


def projected(embedding_ND: np.ndarray, kind: Literal["umap", "pca"], seed: int) -> np.ndarray:
    """Project an embedding to two dimensions, (N, 2); one of one dimension lies on a line."""
    if kind == "pca":
        from sklearn.decomposition import PCA

        n_components = min(2, embedding_ND.shape[1])
        components = PCA(n_components, random_state=0).fit_transform(embedding_ND)
        return np.pad(components, ((0, 0), (0, 2 - n_components)))
    from umap import UMAP

    with warnings.catch_warnings():
        # It warns that a seed allows no more than one thread, and that spectra may not converge.
        warnings.simplefilter("ignore")
        found: np.ndarray = UMAP(random_state=seed % 2**31, n_jobs=1).fit_transform(embedding_ND)
    return found


def write_grid(
    embeddings: Mapping[str, np.ndarray],
    obs: pd.DataFrame,
    path: Path,
    kind: Literal["umap", "pca"],
    seed: int,
) -> dict[str, np.ndarray]:
    """Draw the embeddings into a PNG; return what was drawn, by names for obsm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2 * len(embeddings)), layout="constrained")
    axes = figure.subplots(len(embeddings), len(_COLUMNS), squeeze=False)
    drawn = {}
    order_N = np.random.default_rng(0).permutation(len(obs))  # no batch lies on top
    for row, (name, embedding_ND) in zip(axes, embeddings.items(), strict=True):
        points_N2 = drawn[f"{name}_{kind}"] = projected(embedding_ND, kind, seed)
        for panel, (column, title) in zip(row, _COLUMNS.items(), strict=True):
            _draw(panel, points_N2[order_N], obs[column].iloc[order_N])
            panel.set_title(f"{name} {title}", fontsize=10)
            panel.set_xticks([])
            panel.set_yticks([])
    figure.savefig(path, dpi=100, metadata={"Software": None})
    return drawn


def _draw(panel: Any, points_N2: np.ndarray, values_N: Any) -> None:
    from matplotlib import colormaps

    codes_N, names = values_N.cat.codes.to_numpy(), [*map(str, values_N.cat.categories)]
    colours = [colormaps["tab20"](number) for number in range(20)]
    shades = [_UNKNOWN if code < 0 else colours[code % len(colours)] for code in codes_N]
    panel.scatter(*points_N2.T, c=shades, s=5, linewidths=0)
    for code, name in enumerate(names[:_MOST_NAMES]):
        panel.scatter([], [], color=colours[code % len(colours)], s=20, label=name)
    if names:
        panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
