"""How well an embedding of cells mixes batches and keeps types apart: the measures of scib.

Six of them follow scib-metrics (https://github.com/YosefLab/scib-metrics) with exact neighbours;
isolated labels and k-means, by scikit-learn, follow its definitions. kBET, the tenth, is that of
scib-metrics itself, an extra. Without it, `total` is one of nine measures and not to be compared
with scib's; with it, `scib_total` is of all ten. Each is 1 at best.

Letters: N cells, D dimensions, K neighbours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

_NEIGHBOURS_OF_GRAPH = 15  # the cell itself among them
_NEIGHBOURS_OF_PERPLEXITY = 3  # neighbours for each unit of it
_TOLERANCE, _HALVINGS = 1e-5, 50
_NEIGHBOURS_OF_KBET = 50
_STARTS = 10  # of k-means, whose scores otherwise jump from seed to seed
BIO = ("isolated_labels", "kmeans_nmi", "kmeans_ari", "silhouette_label", "clisi")
BATCH = ("bras", "ilisi", "graph_connectivity", "pcr")
KBET, SCIB_TOTAL = "kbet", "scib_total"
_SHARE_OF_BIO = 0.6


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The K nearest neighbours of each cell, by Euclidean distance; the first is the cell itself.

    Attributes:
        distances_NK: ascending.
        indices_NK: of the neighbours.
    """

    distances_NK: np.ndarray
    indices_NK: np.ndarray

    @classmethod
    def of(cls, embedding_ND: np.ndarray, n_neighbours: int) -> "Neighbours":
        """Find them exactly."""
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=min(n_neighbours, len(embedding_ND)))
        return cls(*search.fit(embedding_ND).kneighbors(embedding_ND))

    def inverse_simpson(self, codes_N: np.ndarray) -> np.ndarray:
        """Compute the effective number of codes around each cell, (N,), at least 1.

        Neighbours count by a kernel whose perplexity is a third of their number; the cell itself
        does not count (Korsunsky et al. 2019, LISI).
        """
        squares_N = np.zeros(len(codes_N))
        for code in np.unique(codes_N):
            squares_N += (self.weights * (codes_N[self.indices_NK] == code)).sum(axis=1) ** 2
        return 1 / squares_N

    @cached_property
    def weights(self) -> np.ndarray:
        """The weights of each cell's neighbours, (N, K), whose sum is 1.

        The widths of the kernels are found by bisection, all cells at once.
        """
        perplexity = self.indices_NK.shape[1] // _NEIGHBOURS_OF_PERPLEXITY
        distances_NK = self.distances_NK
        others_NK = self.indices_NK != np.arange(len(distances_NK))[:, None]
        low_N, high_N = np.zeros(len(distances_NK)), np.full(len(distances_NK), np.inf)
        beta_N = np.ones(len(distances_NK))
        for _ in range(_HALVINGS):
            kernel_NK = np.exp(-distances_NK * beta_N[:, None]) * others_NK
            sums_N = np.maximum(kernel_NK.sum(axis=1), np.finfo(float).tiny)
            weighted_N = (distances_NK * kernel_NK).sum(axis=1)
            excess_N = np.log(sums_N) + beta_N * weighted_N / sums_N - np.log(perplexity)
            if (np.abs(excess_N) < _TOLERANCE).all():
                break
            # Entropy falls as beta rises.
            open_N, rise_N = np.abs(excess_N) >= _TOLERANCE, excess_N > 0
            low_N = np.where(open_N & rise_N, beta_N, low_N)
            high_N = np.where(open_N & ~rise_N, beta_N, high_N)
            middle_N = np.where(np.isinf(high_N), 2 * beta_N, (low_N + high_N) / 2)
            beta_N = np.where(open_N, middle_N, beta_N)
        weights_NK: np.ndarray = kernel_NK / sums_N[:, None]
        return weights_NK

    def connectivity(self, labels_N: np.ndarray) -> float:
        """Average over labels the share of cells in the largest strongly connected part."""
        n_cells, few = len(labels_N), self.indices_NK[:, :_NEIGHBOURS_OF_GRAPH]
        rows = np.repeat(np.arange(n_cells), few.shape[1])
        graph = sparse.csr_matrix((np.ones(few.size), (rows, few.ravel())), (n_cells, n_cells))
        shares = []
        for label in np.unique(labels_N):
            members = np.flatnonzero(labels_N == label)
            _, parts = connected_components(graph[members][:, members], connection="strong")
            shares.append(np.bincount(parts).max() / len(members))
        return float(np.mean(shares))


def silhouette_label(embedding_ND: np.ndarray, labels_N: np.ndarray) -> float:
    """Return the mean silhouette of the labels, scaled to [0, 1]."""
    from sklearn.metrics import silhouette_score

    return float((silhouette_score(embedding_ND, labels_N) + 1) / 2)


def bras(embedding_ND: np.ndarray, labels_N: np.ndarray, batches_N: np.ndarray) -> float:
    """Return the batch removal adapted silhouette (Rautenstrauch & Ohler 2025).

    Within a label, a cell's silhouette compares the mean cosine distance to its own batch with
    that to all cells of other batches. Labels in one batch do not count.
    """
    from sklearn.metrics.pairwise import cosine_distances

    scores = []
    for label in np.unique(labels_N):
        members = labels_N == label
        batches_M = batches_N[members]
        if not 1 < len(np.unique(batches_M)) < len(batches_M):
            continue
        distances_MM = cosine_distances(embedding_ND[members])
        is_same_MM = batches_M[:, None] == batches_M
        n_same_M = is_same_MM.sum(axis=1)
        own_M = (distances_MM * is_same_MM).sum(axis=1) / np.maximum(n_same_M - 1, 1)
        other_M = (distances_MM * ~is_same_MM).sum(axis=1) / (len(batches_M) - n_same_M)
        silhouettes_M = (other_M - own_M) / np.maximum(np.maximum(own_M, other_M), 1e-300)
        # A cell alone in its batch has a silhouette of 0.
        silhouettes_M = np.where(n_same_M > 1, silhouettes_M, 0)
        scores.append((1 - np.abs(silhouettes_M)).mean())
    return float(np.mean(scores)) if scores else float("nan")


def explained_by(embedding_ND: np.ndarray, batches_N: np.ndarray) -> float:
    """Return the share of the variance that lies between batches.

    The variance-weighted R^2 of a regression of all principal components on the batch is this
    share, whatever the rotation.
    """
    centred_ND = embedding_ND - embedding_ND.mean(axis=0)
    between = sum(
        (batches_N == batch).sum() * (centred_ND[batches_N == batch].mean(axis=0) ** 2).sum()
        for batch in np.unique(batches_N)
    )
    return float(between / (centred_ND**2).sum())


def isolated_labels(embedding_ND: np.ndarray, labels_N: np.ndarray, batches_N: np.ndarray) -> float:
    """Return the mean silhouette, in [0, 1], of the labels that are in the fewest batches.

    A cell's silhouette compares its own label with the nearest other one.
    """
    from sklearn.metrics import silhouette_samples

    names = np.unique(labels_N)
    n_batches = [len(np.unique(batches_N[labels_N == name])) for name in names]
    isolated = names[np.array(n_batches) == min(n_batches)]
    silhouettes_N = silhouette_samples(embedding_ND, labels_N)
    means = [silhouettes_N[labels_N == name].mean() for name in isolated]
    return float((np.mean(means) + 1) / 2)


def kmeans(embedding_ND: np.ndarray, labels_N: np.ndarray, seed: int) -> tuple[float, float]:
    """Return NMI and ARI of the labels with as many clusters of k-means."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    n_clusters = len(np.unique(labels_N))
    clusters = KMeans(n_clusters, n_init=_STARTS, random_state=seed).fit_predict(embedding_ND)
    nmi = normalized_mutual_info_score(labels_N, clusters)
    return float(nmi), float(adjusted_rand_score(labels_N, clusters))


def integration_scores(
    embedding_ND: np.ndarray,
    before_ND: np.ndarray,
    labels_N: np.ndarray,
    batches_N: np.ndarray,
    *,
    n_neighbours: int = 90,
    seed: int = 0,
) -> dict[str, float]:
    """Measure an embedding of labelled cells; `before_ND` is one that removes no batch effect.

    With one batch or label, or a cell in each, the measures that compare several are NaN.
    """
    neighbours = Neighbours.of(embedding_ND, n_neighbours)
    n_labels, n_batches = len(np.unique(labels_N)), len(np.unique(batches_N))
    before = explained_by(before_ND, batches_N)
    nmi, ari = kmeans(embedding_ND, labels_N, seed)

    def of_several(count: int, measure: Callable[[], float]) -> float:
        return measure() if 1 < count < len(labels_N) else float("nan")

    def lisi(codes_N: np.ndarray) -> float:
        return float(np.median(neighbours.inverse_simpson(codes_N)))

    scores = {
        "isolated_labels": of_several(
            n_labels, lambda: isolated_labels(embedding_ND, labels_N, batches_N)
        ),
        "kmeans_nmi": nmi,
        "kmeans_ari": ari,
        "silhouette_label": of_several(n_labels, lambda: silhouette_label(embedding_ND, labels_N)),
        "clisi": of_several(n_labels, lambda: (n_labels - lisi(labels_N)) / (n_labels - 1)),
        "bras": of_several(n_batches, lambda: bras(embedding_ND, labels_N, batches_N)),
        "ilisi": of_several(n_batches, lambda: (lisi(batches_N) - 1) / (n_batches - 1)),
        "graph_connectivity": neighbours.connectivity(labels_N),
        "pcr": of_several(
            n_batches,
            lambda: max(0.0, (before - explained_by(embedding_ND, batches_N)) / before),
        ),
    }
    scores["bio"], scores["batch"] = (
        float(np.mean([scores[name] for name in names])) for names in (BIO, BATCH)
    )
    scores["total"] = _SHARE_OF_BIO * scores["bio"] + (1 - _SHARE_OF_BIO) * scores["batch"]
    return scores


def with_kbet(
    scores: Mapping[str, float],
    embedding_ND: np.ndarray,
    labels_N: np.ndarray,
    batches_N: np.ndarray,
) -> dict[str, float]:
    """Add kBET and scib's total of all ten measures to the nine of an embedding.

    kBET (Büttner et al. 2019) is the share of neighbourhoods, within a label, whose batches do
    not differ from those of all its cells. It takes scib-metrics, and NaN is what that gives for
    cells that are too few.
    """
    from scib_metrics import kbet_per_label
    from scib_metrics.nearest_neighbors import NeighborsResults

    found = Neighbours.of(embedding_ND, _NEIGHBOURS_OF_KBET)
    graph = NeighborsResults(indices=found.indices_NK, distances=found.distances_NK)
    kbet = float(kbet_per_label(graph, batches=batches_N, labels=labels_N))
    batch = np.mean([*(scores[name] for name in BATCH), kbet])
    total = float(_SHARE_OF_BIO * scores["bio"] + (1 - _SHARE_OF_BIO) * batch)
    return {**scores, KBET: kbet, SCIB_TOTAL: total}
