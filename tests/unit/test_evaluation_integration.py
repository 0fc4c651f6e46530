"""The measures of integration: scikit-learn's where it has them, invariances, and known cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import silhouette_samples

from jemtrack.evaluation.integration import (
    Neighbours,
    bras,
    explained_by,
    integration_scores,
    isolated_labels,
    silhouette_label,
)

MEASURES = ("bio", "batch", "total")


def clouds(seed: int, *, by_batch: float = 0.0, by_label: float = 8.0, n_cells: int = 160):
    """Draw cells of two labels and two batches, which lie apart along axes of their own."""
    random = np.random.default_rng(seed)
    labels, batches = random.integers(2, size=(2, n_cells))
    embedding = random.normal(size=(n_cells, 4))
    embedding[:, 0] += by_label * labels
    embedding[:, 1] += by_batch * batches
    return embedding, labels, batches


def perplexities(weights: np.ndarray) -> np.ndarray:
    logs = np.log(np.where(weights > 0, weights, 1))
    return np.exp(-(weights * logs).sum(axis=1))


def test_batches_that_are_mixed_score_high_and_batches_apart_low():
    mixed, labels, batches = clouds(1)
    apart = mixed + np.outer(batches, [0, 40, 0, 0])

    good = integration_scores(mixed, apart, labels, batches)
    bad = integration_scores(apart, apart, labels, batches)

    assert min(good[name] for name in ("bras", "ilisi", "graph_connectivity", "pcr")) > 0.9
    assert max(bad[name] for name in ("bras", "ilisi", "graph_connectivity", "pcr")) < 0.6
    assert bad["pcr"] == 0
    assert good["kmeans_ari"] == 1
    assert good["clisi"] > 0.999
    assert good["total"] == pytest.approx(0.6 * good["bio"] + 0.4 * good["batch"])


@given(seed=st.integers(0, 50))
def test_a_rotation_and_an_order_of_cells_change_no_score(seed):
    embedding, labels, batches = clouds(seed, by_batch=2.0)
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.normal(size=(4, 4)))[0]
    order = random.permutation(len(labels))
    before = embedding + 1.0

    one = integration_scores(embedding, before, labels, batches)
    turned = before[order] @ rotation
    # A shift changes cosines, and so BRAS alone.
    other = integration_scores(turned - rotation.sum(axis=0), turned, labels[order], batches[order])

    # In another order, k-means starts elsewhere.
    for name in {*one} - {"kmeans_nmi", "kmeans_ari", "bio", "total"}:
        assert other[name] == pytest.approx(one[name], abs=1e-6), name


@pytest.mark.parametrize(("n_neighbours", "perplexity"), [(90, 30), (31, 10), (6, 2)])
def test_the_weights_of_neighbours_have_the_perplexity_and_are_none_of_the_cell_itself(
    n_neighbours, perplexity
):
    embedding, *_ = clouds(2)
    neighbours = Neighbours.of(embedding, n_neighbours)

    weights = neighbours.weights

    assert neighbours.weights is weights  # both LISI take them, found once
    np.testing.assert_allclose(perplexities(weights), perplexity, rtol=1e-4)
    assert (weights[:, 0] == 0).all()
    np.testing.assert_allclose(neighbours.inverse_simpson(np.zeros(160)), 1)
    each_alone = neighbours.inverse_simpson(np.arange(160))
    np.testing.assert_allclose(each_alone, 1 / (weights**2).sum(axis=1))


def test_silhouettes_are_those_of_scikit_learn():
    embedding, labels, batches = clouds(3, by_batch=1.0, by_label=2.0)
    by_hand = (silhouette_samples(embedding, labels).mean() + 1) / 2

    assert silhouette_label(embedding, labels) == pytest.approx(by_hand)
    within = [
        1
        - np.abs(silhouette_samples(embedding[labels == n], batches[labels == n], metric="cosine"))
        for n in (0, 1)
    ]
    # Of two batches, all cells of other batches are those of the nearest other one.
    assert bras(embedding, labels, batches) == pytest.approx(np.mean([w.mean() for w in within]))
    assert np.isnan(bras(embedding, labels, labels))
    batches[labels == 0] = 0
    isolated = silhouette_samples(embedding, labels)[labels == 0].mean()
    assert isolated_labels(embedding, labels, batches) == pytest.approx((isolated + 1) / 2)


def test_isolated_labels_are_compared_with_the_nearest_label_and_not_with_all_others():
    """As in scib-metrics: the silhouettes of all labels, averaged over those of isolated ones."""
    random, labels = np.random.default_rng(1), np.arange(120) % 4
    embedding = random.normal(size=(120, 2)) + np.array([[0, 0], [3, 0], [0, 30], [30, 30]])[labels]
    batches = random.integers(2, size=120) * (labels > 1)

    silhouettes = silhouette_samples(embedding, labels)

    means = [silhouettes[labels == label].mean() for label in (0, 1)]
    expected = (np.mean(means) + 1) / 2
    assert isolated_labels(embedding, labels, batches) == pytest.approx(expected)


def test_each_cell_of_a_label_of_its_own_has_no_silhouette():
    embedding, _, batches = clouds(7, n_cells=20)

    scores = integration_scores(embedding, embedding, np.arange(20), batches)

    assert all(np.isnan(scores[name]) for name in ("silhouette_label", "isolated_labels", "clisi"))
    assert scores["ilisi"] > 0


def test_the_variance_between_batches_is_what_a_regression_of_components_explains():
    embedding, _, batches = clouds(4, by_batch=3.0)
    components = PCA().fit(embedding)
    scores, one_hot = components.transform(embedding), np.eye(2)[batches]
    explained = [
        LinearRegression().fit(one_hot, column).score(one_hot, column) for column in scores.T
    ]

    expected = np.average(explained, weights=components.explained_variance_)

    assert explained_by(embedding, batches) == pytest.approx(expected)


def test_a_label_in_two_parts_is_connected_by_the_larger():
    embedding, labels, batches = clouds(5, by_label=50.0)
    embedding[(labels == 1) & (batches == 1)] += 100
    larger = np.bincount(batches[labels == 1]).max() / (labels == 1).sum()

    found = Neighbours.of(embedding, 15).connectivity(labels)

    assert found == pytest.approx((1 + larger) / 2)


def test_what_compares_several_is_not_there_for_one():
    embedding, labels, _ = clouds(6)

    scores = integration_scores(embedding, embedding, labels, np.zeros(len(labels)))

    assert all(np.isnan(scores[name]) for name in ("bras", "ilisi", "pcr", "batch", "total"))
    assert scores["silhouette_label"] > 0.5
