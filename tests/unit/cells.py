"""Synthetic cells, raw and prepared, for tests that need no more than a few."""

import dataclasses

import numpy as np
import torch
from scipy import sparse

from jemtrack.data.cells.cells import Cells, CellSplits, Vocabulary
from jemtrack.data.cells.prepare import CellArgs
from jemtrack.data.cells.synthetic import SyntheticCells
from jemtrack.shared.hardware import chosen_device
from jemtrack.stages.train_invae import InVAEArgs
from jemtrack.train.launch import Runtime
from jemtrack.train.recipe import Recipe
from jemtrack.train.run import Training

ARGS = CellArgs(
    dataset="synthetic", min_genes=5, min_cells=3, n_top_genes=40, hvg_by_batch=False, span=1.0
)
SMALL = {
    "hidden": 8,
    "z_i_dim": 3,
    "z_s_dim": 2,
    "n_epochs": 2,
    "batch_size": 32,
    "valid_samples": 1,
    "threads": 1,
}


def raw_cells(**options):
    """Draw 200 cells of 120 genes, three types and two batches."""
    sizes = {"n_cells": 200, "n_genes": 120, "n_types": 3, "n_batches": 2, "counts_per_cell": 300.0}
    return SyntheticCells(**{**sizes, **options}).draw()


def some_cells(n_cells: int = 70, n_genes: int = 30, *, unlabelled: int = 0) -> Cells:
    """Make cells of three labels and two batches; the first ones have no label."""
    random = np.random.default_rng(n_cells)
    counts_NG = sparse.csr_matrix(random.poisson(0.7, size=(n_cells, n_genes)).astype(np.int32))
    labels_N = np.arange(n_cells) % 3
    labels_N[:unlabelled] = -1
    return Cells(counts_NG, np.arange(n_cells) // 2 % 2, labels_N)


def some_splits(n_train: int = 70, **options) -> CellSplits:
    """Make the training and validation cells of a prepared file."""
    train = some_cells(n_train, **options)
    genes = tuple(f"gene{number}" for number in range(train.counts_NG.shape[1]))
    vocabulary = Vocabulary(genes, ("b1", "b2"), ("t1", "t2", "t3"))
    return CellSplits("made-up", 1, vocabulary, train, some_cells(20, len(genes)))


def training(data: CellSplits, **options) -> Training:
    """Make a training of inVAE on the CPU."""
    params = InVAEArgs(**{**SMALL, **options})
    return Training(
        name="x",
        family=params.family,
        recipe=Recipe(steps=(params.ordinary_step(),)),
        model=params,
        settings=params,
        data=data,
        runtime=Runtime(chosen_device("cpu")),
        notes={"dataset": data.dataset},
    )


def network(**options):
    """Make a network of 30 genes, two batches and three labels, in evaluation mode."""
    made = training(some_splits(), **options).state.models["network"]
    return made.eval()


def split_bytes(data: CellSplits) -> list[bytes]:
    """Return all that a training sees, as bytes."""
    parts = [
        array.tobytes()
        for cells in (data.train, data.valid)
        for array in (
            cells.counts_NG.data,
            cells.counts_NG.indices,
            cells.counts_NG.indptr,
            cells.batches_N,
            cells.labels_N,
        )
    ]
    rest = dataclasses.asdict(dataclasses.replace(data, train=None, valid=None))
    return [*parts, repr(rest).encode()]


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator at its start."""
    return torch.Generator().manual_seed(seed)
