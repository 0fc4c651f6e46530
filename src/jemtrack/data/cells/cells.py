"""Prepared cells: the file that PrepareCells writes, and what is read from it.

Letters: N cells, G genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from jemtrack.data.cells.raw import counts_of
from jemtrack.documents import refused_if_broken
from jemtrack.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

BATCH, LABEL, SPLIT, TOTAL = "batch", "cell_type", "split", "total_counts"  # columns of obs
PARTS = TRAIN, VALID, TEST = "train", "valid", "test"
NOTES = "jemtrack"  # of uns: the data set's name and the seed
UNKNOWN = -1  # code of a batch or label that is not in the vocabulary


class Vocabulary(NamedTuple):
    """The names of what a model knows, in the order of its codes."""

    genes: tuple[str, ...]
    batches: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Cells:
    """Counts (N, G) in sparse rows, and the codes of batches and labels (int64, N)."""

    counts_NG: sparse.csr_matrix
    batches_N: np.ndarray
    labels_N: np.ndarray

    def __len__(self) -> int:
        return len(self.batches_N)

    @classmethod
    def of(cls, data: AnnData, vocabulary: Vocabulary) -> Cells:
        """Take the counts of the vocabulary's genes, and code the names of batches and labels.

        `data` are prepared cells that were read by `read_prepared`.
        """
        counts_NG, _ = with_genes(data.X, [*map(str, data.var_names)], vocabulary.genes)
        batches_N = _codes(data, BATCH, vocabulary.batches)
        return cls(counts_NG, batches_N, _codes(data, LABEL, vocabulary.labels))


@dataclass(frozen=True, eq=False)
class CellSplits:
    """What a training sees: training and validation cells, and the names of its vocabulary.

    Nothing of the held-out cells is in it. `seed` draws all that is random in the training.
    """

    dataset: str
    seed: int
    vocabulary: Vocabulary
    train: Cells
    valid: Cells

    @classmethod
    def load(cls, path: Path) -> CellSplits:
        """Read the training and validation cells of a prepared file.

        Raises:
            InputError: if the file is missing, broken or not a prepared one.
        """
        prepared = read_prepared(path)
        train, valid = (part_of(prepared, name) for name in (TRAIN, VALID))
        notes = prepared.uns[NOTES]
        vocabulary = Vocabulary(
            tuple(map(str, prepared.var_names)), _names(train, BATCH), _names(train, LABEL)
        )
        return cls(
            str(notes["dataset"]),
            int(notes["seed"]),
            vocabulary,
            Cells.of(train, vocabulary),
            Cells.of(valid, vocabulary),
        )


def read_prepared(path: Path) -> AnnData:
    """Read a prepared file whole; X is in sparse rows of int32.

    Raises:
        InputError: if it is missing, broken or not a prepared one, or X does not hold counts.
    """
    data = read_h5ad(path)
    missing = [name for name in (BATCH, LABEL, SPLIT) if name not in data.obs]
    if missing or NOTES not in data.uns:
        raise InputError(
            f"{path} is no file of prepared cells: it has no {', '.join(missing) or NOTES}; "
            "give the raw file to PrepareCells, and take its cells.h5ad"
        )
    data.X = counts_of(data, None, str(path))
    return data


def read_h5ad(path: Path) -> AnnData:
    """Read an .h5ad file.

    Raises:
        InputError: if it is missing or broken.
    """
    import anndata

    if not path.is_file():
        raise InputError(f"{path} is not a file; expected an .h5ad file of cells")
    with refused_if_broken(
        f"{path}:", "is not a whole .h5ad file", "write it with AnnData's write_h5ad"
    ):
        return anndata.read_h5ad(path)


def part_of(prepared: AnnData, name: str) -> AnnData:
    """Pick the cells of a part of a prepared file."""
    return prepared[(prepared.obs[SPLIT] == name).to_numpy()]


def with_genes(
    counts_NG: sparse.csr_matrix, names: Sequence[str], genes: Sequence[str]
) -> tuple[sparse.csr_matrix, list[str]]:
    """Pick `genes` by the `names` of the columns; a gene that the cells lack has no counts.

    Return the counts, and the names of the genes that are lacking.
    """
    columns = {name: column for column, name in enumerate(names)}
    found = [columns.get(gene, UNKNOWN) for gene in genes]
    missing = [gene for gene, column in zip(genes, found, strict=True) if column < 0]
    empty_N1 = sparse.csr_matrix((counts_NG.shape[0], 1), dtype=counts_NG.dtype)
    padded = sparse.hstack([counts_NG, empty_N1], format="csr")
    picked = padded[:, found]  # -1 is the column of zeros
    picked.sort_indices()
    return picked, missing


def _names(data: AnnData, column: str) -> tuple[str, ...]:
    """Name what occurs in a column, sorted; cells without a name do not count."""
    return tuple(sorted(map(str, data.obs[column].dropna().unique())))


def _codes(data: AnnData, column: str, names: tuple[str, ...]) -> np.ndarray:
    codes = {name: code for code, name in enumerate(names)}
    values: Any = data.obs[column] if column in data.obs else [None] * data.n_obs
    return np.array([codes.get(str(value), UNKNOWN) for value in values], dtype=np.int64)
