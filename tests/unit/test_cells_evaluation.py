"""What EvaluateCells makes of embeddings: components, transferred labels, pictures."""

import numpy as np
import pandas as pd
import pytest
from cells import some_cells
from PIL import Image
from scipy import sparse
from sklearn.decomposition import PCA

from jemtrack.data.cells.cells import Vocabulary, with_genes
from jemtrack.errors import InputError
from jemtrack.evaluation.cell_pictures import write_grid
from jemtrack.evaluation.cell_transfer import transfer_scores
from jemtrack.stages.evaluate_cells import principal_components


def test_components_are_those_of_the_training_cells():
    cells, train = some_cells(60, 20), np.arange(60) < 40
    dense = cells.counts_NG.toarray()
    logs = np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True))
    expected = PCA(3).fit(logs[train]).transform(logs)

    found = principal_components(cells, train, 3)

    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-6, atol=1e-6)
    assert principal_components(cells, train, 99).shape == (60, 19)
    with pytest.raises(InputError, match="need two training cells, got 1"):
        principal_components(cells, np.arange(60) == 0, 3)


def test_labels_are_transferred_from_the_nearest_training_cells():
    random = np.random.default_rng(1)
    labels = np.arange(90) % 3
    embedding = random.normal(0, 0.1, size=(90, 2)) + np.array([[0, 0], [9, 0], [0, 9]])[labels]

    sure = transfer_scores(embedding, labels, embedding, labels)
    # A label that no training cell has is left out, and so are its neighbours' votes.
    known = labels < 2
    other = transfer_scores(embedding[known], labels[known], embedding, labels)
    guessed = transfer_scores(embedding, random.permutation(labels), embedding, labels)

    assert sure["accuracy"] == sure["macro_f1"] == other["accuracy"] == 1
    assert sure["nll"] < 0.01
    assert guessed["accuracy"] < 0.7
    assert guessed["ece"] > sure["ece"]


def test_embeddings_are_drawn_with_unknown_types(tmp_path):
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(["b1", "b2"] * 10),
            "cell_type": pd.Categorical(["t1"] * 10 + [None] * 10),
        }
    )
    embedding = np.random.default_rng(0).normal(size=(20, 5))

    drawn = write_grid({"X_a": embedding, "X_b": embedding}, obs, tmp_path / "x.png", "pca", 1)

    assert {name: points.shape for name, points in drawn.items()} == {
        "X_a_pca": (20, 2),
        "X_b_pca": (20, 2),
    }
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (1000, 840)


def test_genes_are_found_by_their_names():
    counts = sparse.csr_matrix(np.array([[1, 2, 3], [0, 5, 0]]))

    picked, missing = with_genes(counts, ["a", "b", "c"], Vocabulary(("c", "x", "a"), (), ()))

    assert picked.toarray().tolist() == [[3, 0, 1], [0, 0, 0]]
    assert missing == ["x"]
