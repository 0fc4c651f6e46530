"""What EvaluateCells makes of embeddings: components, transferred labels, pictures."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from cells import ARGS, network, raw_cells, some_cells, some_splits, training
from PIL import Image
from scipy import sparse
from sklearn.decomposition import PCA

from jemtrack.data.cells.cells import Cells, CellSplits, read_prepared, with_genes
from jemtrack.data.cells.prepare import prepare_cells
from jemtrack.errors import InputError, ParameterError
from jemtrack.evaluation.cell_pictures import projected, write_grid
from jemtrack.evaluation.cell_transfer import transfer_scores
from jemtrack.stages.evaluate_cells import (
    CellEvalArgs,
    EvaluateCells,
    check_extras,
    principal_components,
)
from jemtrack.stages.map_cells import MapArgs, MapCells


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


@pytest.mark.parametrize(
    ("train", "held_out"),
    [([0] * 40, [0] * 20), ([], [0] * 20), ([0, 1] * 20, [2] * 20)],
    ids=["one label", "no labelled training cell", "no held-out label is known"],
)
def test_nothing_is_transferred_if_there_is_nothing_to_choose_from(train, held_out):
    embedding = np.random.default_rng(1).normal(size=(60, 2))

    scores = transfer_scores(
        embedding[: len(train)], np.array(train, dtype=int), embedding[40:], np.array(held_out)
    )

    assert scores == {}


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


def test_an_embedding_of_one_dimension_is_drawn_on_a_line():
    embedding = np.random.default_rng(0).normal(size=(20, 1))

    points = projected(embedding, "pca", 1)

    np.testing.assert_allclose(np.abs(points[:, 0]), np.abs(embedding - embedding.mean())[:, 0])
    assert (points[:, 1] == 0).all()


@pytest.fixture
def prepared(tmp_path):
    """Write prepared cells with a user's embedding by the name of the components."""
    raw = raw_cells()
    raw.obsm["X_pca"] = raw.obsm["X_true"]
    prepare_cells(raw, ARGS, "raw").cells.write_h5ad(path := tmp_path / "cells.h5ad")
    return path


def test_no_embedding_takes_the_name_of_the_baseline(prepared):
    data = read_prepared(prepared)
    cells = Cells.of(data, CellSplits.load(prepared).vocabulary)

    def beside(*names):
        stage = EvaluateCells(data=prepared, model="x", params=CellEvalArgs(compare=names))
        return stage._beside(data, cells)

    assert [*beside("X_true")] == ["X_pca", "X_true"]
    with pytest.raises(ParameterError, match=r"compare must hold no name that .* got 'X_pca'"):
        beside("X_true", "X_pca")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("kbet", "scib_metrics", "integration"), ("harmony", "harmonypy", "harmony")],
)
def test_a_missing_package_is_named_before_anything_is_measured(name, package, extra, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda asked: None)

    with pytest.raises(ParameterError, match=rf"{name} must be false .*{package}.*\[{extra}\]"):
        check_extras(CellEvalArgs(**{name: True}))
    check_extras(CellEvalArgs())


@pytest.mark.parametrize(
    ("options", "unlabelled", "is_measured"),
    [({}, 10, True), ({}, 70, False), ({"labels_in_prior": False}, 0, False)],
)
def test_the_likelihood_given_labels_is_measured_if_it_depends_on_them(
    prepared, options, unlabelled, is_measured
):
    stage = EvaluateCells(data=prepared, model="x", params=CellEvalArgs(iwae_samples=2))

    found = stage._likelihood(network(**options), some_cells(unlabelled=unlabelled), 1)

    assert ("nll_given_label" in found) == ("elbo_given_label" in found) == is_measured
    assert found["nll"].mean() <= -found["elbo"].mean()


@pytest.mark.parametrize(("n_missing", "end"), [(1, "gene29"), (6, "gene28 and 1 more")])
def test_new_cells_that_lack_genes_are_refused(tmp_path, n_missing, end):
    training(some_splits()).save(model := tmp_path / "model.safetensors")
    cells = some_cells()
    new = AnnData(cells.counts_NG, var=pd.DataFrame(index=some_splits().vocabulary.genes))
    new[:, : 30 - n_missing].copy().write_h5ad(path := tmp_path / "new.h5ad")
    stage = MapCells(model=model, params=MapArgs(path=str(path), min_share=1.0, device="cpu"))

    with pytest.raises(InputError, match=rf"must have 100% .* {end}; name the genes"):
        stage.compute()


def test_genes_are_found_by_their_names():
    counts = sparse.csr_matrix(np.array([[1, 2, 3], [0, 5, 0]]))

    picked, missing = with_genes(counts, ["a", "b", "c"], ("c", "x", "a"))

    assert picked.toarray().tolist() == [[3, 0, 1], [0, 0, 0]]
    assert missing == ["x"]
