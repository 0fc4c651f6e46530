"""Preparing cells: bad input is refused by name, and training sees nothing of what is held out."""

import dataclasses
import shutil
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from cells import ARGS, raw_cells, split_bytes
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from jemtrack.data.cells.cells import CellSplits, part_of, read_prepared
from jemtrack.data.cells.prepare import Prepared, prepare_cells
from jemtrack.data.cells.sources import are_cells, fetch_cells, read_baron, read_cells
from jemtrack.data.cells.synthetic import SyntheticCells
from jemtrack.errors import InputError, ParameterError


def prepared(raw=None, **options) -> Prepared:
    return prepare_cells(
        raw_cells() if raw is None else raw, dataclasses.replace(ARGS, **options), "cells.h5ad"
    )


def with_values(value: float, dtype=np.float64):
    """Raw cells of which one value is another."""
    raw = raw_cells()
    counts = raw.X.astype(dtype).toarray()
    counts[3, 5] = value
    raw.X = sparse.csc_matrix(counts)
    return raw


def dense(raw):
    raw.X = raw.X.toarray()
    return raw


def with_obs(column: str, value):
    raw = raw_cells()
    raw.obs[column] = raw.obs[column].astype(object)
    raw.obs.loc["cell7", column] = value
    return raw


def renamed(kind: str):
    raw = raw_cells()
    names = [*getattr(raw, f"{kind}_names")]
    setattr(raw, f"{kind}_names", [names[0], names[0], *names[2:]])
    return raw


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        (lambda: with_values(0.69), {}, r"X must hold counts.* 0\.69 \(cell cell3, gene gene5\)"),
        (lambda: with_values(-1), {}, r"whole numbers from 0.* -1\.0 \(cell cell3, gene gene5\)"),
        (lambda: with_values(np.nan), {}, r"it holds nan \(cell cell3, gene gene5\)"),
        (lambda: with_values(np.inf), {}, r"it holds inf \(cell cell3, gene gene5\)"),
        (lambda: dense(with_values(0.69)), {}, r"counts.* 0\.69 \(cell cell3, gene gene5\)"),
        (lambda: with_values(1, bool), {}, "X must hold numbers, got bool"),
        (lambda: renamed("obs"), {}, "name of a cell must occur once, 'cell0' occurs again"),
        (lambda: renamed("var"), {}, "name of a gene must occur once, 'gene0'.*var_names_make"),
        (lambda: with_obs("batch", np.nan), {}, r"every cell must have a batch.*cell cell7"),
        (raw_cells, {"layer": "counts"}, "layer must be a layer of cells.h5ad, got 'counts'"),
        (raw_cells, {"batch_key": "batches"}, "batch_key must be .* did you mean batch"),
        (raw_cells, {"label_key": "celltype"}, "label_key must be .* did you mean cell_type"),
        (raw_cells, {"split_key": "cell_type"}, r"obs\['cell_type'\] must be one of train, valid"),
        (raw_cells, {"n_top_genes": 999}, r"n_top_genes must be <= \d+, the genes in 3 training"),
        (raw_cells, {"max_mito": 0.1}, "max_mito must be 0: no gene has a name that begins"),
        (raw_cells, {"min_genes": 121}, "no cell of 200 is left; left out by empty 0, min_genes"),
    ],
)
def test_bad_input_is_named_with_its_place_and_its_remedy(raw, options, message):
    with pytest.raises(InputError, match=message):
        prepared(raw(), **options)


def test_a_layer_may_hold_the_counts():
    raw = raw_cells()
    raw.layers["counts"] = raw.X.astype(np.float32)
    raw.X = raw.X.astype(np.float32).log1p()

    from_layer = prepared(raw, layer="counts").cells

    assert (from_layer.X != prepared().cells.X).nnz == 0
    with pytest.raises(InputError, match=r"name the layer of the raw counts.*layers: counts"):
        prepared(raw)


def test_indices_of_two_sizes_are_read():
    raw = raw_cells()
    expected = prepared(raw).cells.X.toarray()
    raw.X.indptr = raw.X.indptr.astype(np.int64)

    assert (prepared(raw).cells.X.toarray() == expected).all()


def test_what_may_not_be_meant_is_said():
    raw = raw_cells(n_batches=1)
    raw.obs["cell_type"] = raw.obs["cell_type"].astype(str)
    raw.obs.loc["cell7", "cell_type"] = "rare"

    (one_batch, rare) = prepared(raw).warnings

    assert one_batch == "all training cells are of the batch batch1: there is none to remove"
    assert rare == "rare of batch1: fewer than 5 cells, trained on and not split"
    (alone,) = prepared().warnings
    assert alone == "type3: in one batch alone, so that its effect and theirs are one"


def test_cells_are_filtered_each_by_itself():
    raw = raw_cells()
    totals = np.asarray(raw.X.sum(axis=1)).ravel()
    smallest, largest = int(np.sort(totals)[10]), int(np.sort(totals)[-10])
    raw.X = sparse.csr_matrix(raw.X.toarray() * (np.arange(200) > 0)[:, None])

    found = prepared(raw, min_counts=smallest, max_counts=largest)

    kept = found.cells.obs["total_counts"]
    assert (kept.min(), kept.max()) == (smallest, largest)
    assert found.facts["left_out"]["empty"] == 1
    assert sum(found.facts["cells"].values()) == found.cells.n_obs


def test_batches_and_types_are_split_in_the_same_shares_and_small_ones_are_not():
    obs = prepared(raw_cells(n_cells=600)).cells.obs

    for (_, _), stratum in obs.groupby(["batch", "cell_type"], observed=True):
        sizes = stratum["split"].value_counts()
        n_test = round(0.2 * len(stratum)) if len(stratum) >= 5 else 0
        assert sizes.get("test", 0) == n_test
        assert sizes.get("valid", 0) == round(0.1 * (len(stratum) - n_test) * (len(stratum) >= 5))


def test_unlabelled_names_stand_for_no_label(tmp_path: Path):
    raw = with_obs("cell_type", "Unassigned")
    raw.obs.loc["cell8":"cell60", "cell_type"] = "UNKNOWN"  # so that some are in each part
    path = tmp_path / "cells.h5ad"
    prepared(raw).cells.write_h5ad(path)

    data = CellSplits.load(path)

    assert data.vocabulary.labels == ("type1", "type2", "type3")
    whole = read_prepared(path)
    assert whole.obs.loc["cell7", "cell_type"] is np.nan
    for part in ("train", "valid"):
        labels = whole.obs["cell_type"][whole.obs["split"] == part]
        assert (getattr(data, part).labels_N == -1).tolist() == labels.isna().to_list()
    prepared(raw, label_key=None).cells.write_h5ad(path)
    without = CellSplits.load(path)
    assert without.vocabulary.labels == ()
    assert {*without.train.labels_N} == {-1}


def test_genes_are_those_that_scanpy_ranks_first_in_the_training_cells():
    from scanpy.preprocessing import highly_variable_genes

    raw = raw_cells()
    found = prepared(raw)
    train = found.cells.obs_names[found.cells.obs["split"] == "train"]
    cells = raw[train, found.genes["expressed"].to_numpy()].copy()

    highly_variable_genes(cells, flavor="seurat_v3", n_top_genes=40, span=1.0)

    assert [*found.cells.var_names] == [*cells.var_names[cells.var["highly_variable"]]]
    assert [*found.genes.index[found.genes["chosen"]]] == [*found.cells.var_names]


def test_a_batch_in_which_genes_cannot_be_ranked_is_named():
    raw = raw_cells()
    few = raw.obs["batch"] == "batch2"
    keep = np.flatnonzero(~few | (few.cumsum() <= 5))

    with pytest.raises(ParameterError, match=r"hvg_by_batch must be false.* in batch2 \("):
        prepared(raw[keep].copy(), hvg_by_batch=True, span=0.3)


def seen(cells: anndata.AnnData, folder: Path) -> list[bytes]:
    path = folder / "cells.h5ad"
    cells.write_h5ad(path)
    return split_bytes(CellSplits.load(path))


@given(seed=st.integers(0, 99))
def test_training_sees_nothing_of_held_out_cells(tmp_path_factory, seed):
    """Whatever counts and labels held-out cells have, not a byte of what training sees changes."""
    random, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("cells")
    raw = raw_cells()
    first = prepared(raw).cells
    raw.obs["part"] = first.obs["split"].astype(str).reindex(raw.obs_names).fillna("test")
    held_out = np.flatnonzero(raw.obs["part"] == "test")
    other = raw.copy()
    counts = other.X.toarray()
    # The sum of every other cell's counts, and its genes, are others than they were.
    counts[held_out] = random.permutation(counts[held_out].ravel()).reshape(-1, raw.n_vars) * 3
    other.X = sparse.csr_matrix(counts)
    labels = other.obs["cell_type"].astype(str).to_numpy(copy=True)
    labels[held_out] = random.permutation([*labels[held_out][:-1], "unseen before"])
    other.obs["cell_type"] = labels

    by_split = [seen(prepared(each, split_key="part").cells, folder) for each in (raw, other)]

    assert by_split[0] == by_split[1]
    # The drawn split, too, is one of types and batches, and not of counts.
    other.obs["cell_type"] = raw.obs["cell_type"]
    assert seen(prepared(other).cells, folder) == seen(first, folder)


def test_the_file_opens_in_readers_of_old(tmp_path: Path):
    """Strings are plain, categories are categories: anndata 0.8, anndataR and Seurat read these."""
    raw = raw_cells()
    raw.obs["batch"] = raw.obs["batch"].astype("string")
    prepared(raw).cells.write_h5ad(path := tmp_path / "cells.h5ad")

    with h5py.File(path) as file:
        kinds = {
            item.attrs["encoding-type"]
            for item in (file["obs/_index"], file["var/gene"], file["obs/batch/categories"])
        }
        assert kinds == {"string-array"}
        assert file["obs/batch"].attrs["encoding-type"] == "categorical"
        assert file["X"].attrs["encoding-type"] == "csr_matrix"
        assert file["X/data"].dtype == np.int32
    assert {*part_of(read_prepared(path), "test").obs["split"]} == {"test"}


def test_a_file_that_is_none_is_refused(tmp_path: Path):
    (path := tmp_path / "cells.h5ad").write_bytes(b"no file of HDF5")

    with pytest.raises(InputError, match=r"is not a whole \.h5ad file"):
        CellSplits.load(path)
    with pytest.raises(InputError, match=r"is not a file; expected an \.h5ad file"):
        CellSplits.load(tmp_path / "missing.h5ad")
    raw_cells().write_h5ad(path)
    with pytest.raises(InputError, match="no file of prepared cells: it has no split"):
        CellSplits.load(path)
    logs = prepared().cells
    logs.X = logs.X.astype(np.float32).log1p()
    logs.write_h5ad(path)
    with pytest.raises(InputError, match=r"X must hold counts.* it holds 1\.79"):
        CellSplits.load(path)


def test_one_s_own_cells_and_synthetic_ones_are_brought(tmp_path: Path):
    raw_cells().write_h5ad(own := tmp_path / "mine.h5ad")
    root = tmp_path / "data"
    assert are_cells("mine", root, own)
    assert not are_cells("mine", root, None)

    (path,) = fetch_cells("mine", root, own)

    assert path == root / "mine" / "cells.h5ad"
    assert are_cells("mine", root, None)
    assert are_cells("baron", root, None)
    assert not are_cells("digits", root, own)
    assert read_cells("mine", path.parent).n_obs == 200
    with pytest.raises(InputError, match=r"synthetic cells are drawn, and not read from .*mine"):
        fetch_cells("synthetic", root, own)
    with pytest.raises(InputError, match=r"bring it with `jemtrack data other --from FILE.h5ad`"):
        read_cells("other", root / "other")
    with pytest.raises(InputError, match=r"sc-mixology was not found[^$]*--from FILE"):
        fetch_cells("sc-mixology", root, own.parent / "data" / "mine")


def test_baron_s_table_is_genes_by_cells(tmp_path: Path):
    counts, labels = tmp_path / "counts.csv", tmp_path / "labels.csv"
    cells = ["human1_lib1.final_cell_0001", "human1_lib3.final_cell_0002"]
    pd.DataFrame([[0, 4], [2, 0], [1, 1]], ["A", "B", "C"], cells).to_csv(counts)
    pd.DataFrame({"x": ["alpha", "beta"]}).to_csv(labels)

    found = read_baron([counts, labels])

    assert found.X.toarray().tolist() == [[0, 2, 1], [4, 0, 1]]
    assert [*found.obs["batch"]] == ["lib1", "lib3"]
    assert [*found.obs["cell_type"]] == ["alpha", "beta"]
    assert [*found.var_names] == ["A", "B", "C"]


def test_synthetic_cells_are_of_their_types_and_batches():
    options = {"n_cells": 1200, "n_genes": 50, "counts_per_cell": 1000.0, "n_types": 3}
    cells = SyntheticCells(**options).draw()

    assert (cells.X != SyntheticCells(**options).draw().X).nnz == 0
    depth = pd.Series(np.asarray(cells.X.sum(axis=1)).ravel(), cells.obs_names)
    by_batch = depth.groupby(cells.obs["batch"], observed=True).mean()
    assert by_batch.to_list() == pytest.approx([1046, 697, 465], rel=0.1)
    assert {*cells.obs["batch"][cells.obs["cell_type"] == "type3"]} == {"batch1"}
    # Counts are scattered more than those of a Poisson distribution.
    assert cells.X.toarray().var(axis=0).mean() > 1.5 * cells.X.toarray().mean()


def test_known_cells_are_checked(tmp_path: Path):
    source = tmp_path / "sc_mixology_5batches.h5ad"
    raw_cells().write_h5ad(source)
    shutil.copytree(tmp_path, root := tmp_path / "data" / "sc-mixology", ignore=lambda *_: {"data"})

    with pytest.raises(InputError, match="wrong checksum"):
        read_cells("sc-mixology", root)
