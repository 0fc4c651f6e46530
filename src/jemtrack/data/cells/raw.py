"""Raw cells: their counts and names, checked before anything is made of them.

Letters: N cells, G genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from jemtrack.errors import InputError, ParameterError
from jemtrack.parameters import format_value, suggestion

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_LARGEST = 2**31 - 1


def counts_of(data: AnnData, layer: str | None, file: str) -> sparse.csr_matrix:
    """Return the raw counts of the cells `data`, (N, G) in sparse rows of int32.

    Zeros that are stored may be removed from `data`, too: there is no second copy of it.

    Raises:
        InputError: if the values are not counts, or names of cells or genes occur twice.
    """
    for kind, names in (("cell", data.obs_names), ("gene", data.var_names)):
        if not names.is_unique:
            again = names[names.duplicated()][0]
            method = "obs_names_make_unique" if kind == "cell" else "var_names_make_unique"
            raise InputError(
                f"{file}: the name of a {kind} must occur once, {format_value(str(again))} occurs "
                f"again; call {method}() of the AnnData and write it again"
            )
    if layer is not None and layer not in data.layers:
        raise ParameterError(
            f"layer must be a layer of {file}, got {format_value(layer)}; "
            f"{suggestion(layer, data.layers)}"
        )
    matrix = data.X if layer is None else data.layers[layer]
    if matrix is None:
        raise ParameterError(f"layer must name the layer of the counts: {file} has no X")
    counts_NG = sparse.csr_matrix(matrix)
    # Files that were joined may have row starts of 64 bits, with columns of 32.
    index = sparse.get_index_dtype(maxval=max(counts_NG.nnz, *counts_NG.shape))
    counts_NG.indptr = counts_NG.indptr.astype(index, copy=False)
    counts_NG.indices = counts_NG.indices.astype(index, copy=False)
    counts_NG.sum_duplicates()
    _check_counts(counts_NG, data, "X" if layer is None else f"layers[{layer!r}]", file)
    counts_NG.eliminate_zeros()
    return counts_NG.astype(np.int32, copy=False)


def _check_counts(counts_NG: sparse.csr_matrix, data: AnnData, column: str, file: str) -> None:
    values_M = counts_NG.data
    if not np.issubdtype(values_M.dtype, np.number) or np.iscomplexobj(values_M):
        raise InputError(f"{file}: {column} must hold numbers, got {values_M.dtype}")
    with np.errstate(invalid="ignore"):
        is_count_M = (values_M >= 0) & (values_M <= _LARGEST)
        if not np.issubdtype(values_M.dtype, np.integer):
            is_count_M &= values_M == np.floor(values_M)
    if is_count_M.all():
        return
    first = int(np.argmin(is_count_M))
    row = int(np.searchsorted(counts_NG.indptr, first, side="right")) - 1
    cell, gene = data.obs_names[row], data.var_names[counts_NG.indices[first]]
    others = ", ".join(data.layers) or "none"
    raise InputError(
        f"{file}: {column} must hold counts, whole numbers from 0 to {_LARGEST}; it holds "
        f"{values_M[first]} (cell {cell}, gene {gene}). Logs and normalised values are no counts: "
        f"name the layer of the raw counts, which PrepareCells and MapCells have a parameter for "
        f"(params.layer; layers: {others})"
    )


def names_of(data: AnnData, column: str, parameter: str, file: str) -> pd.Series[Any]:
    """Return the column of obs that `parameter` names, as text; missing values stay missing.

    Raises:
        ParameterError: if there is none.
    """
    if column not in data.obs:
        raise ParameterError(
            f"{parameter} must be a column of obs in {file}, got {format_value(column)}; "
            f"{suggestion(column, map(str, data.obs.columns))}"
        )
    values = data.obs[column]
    named: pd.Series[Any] = values.astype(str).where(values.notna(), None)
    return named


def batches_of(data: AnnData, column: str, file: str) -> pd.Series[Any]:
    """Return the batch of each cell.

    Raises:
        InputError: if the column is missing, or a cell has none.
    """
    batches_N = names_of(data, column, "batch_key", file)
    if batches_N.isna().any():
        cell = batches_N.index[batches_N.isna()][0]
        raise InputError(
            f"{file}: every cell must have a batch; obs[{column!r}] of cell {cell} is missing: "
            "fill it in, or remove these cells"
        )
    return batches_N
