"""Prepare cells: filter them, split them, and choose genes by the training cells alone.

Letters: N cells, G genes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field
from scipy import sparse

from jemtrack.data.cells.cells import BATCH, LABEL, NOTES, PARTS, SPLIT, TEST, TOTAL, TRAIN, VALID
from jemtrack.data.cells.raw import batches_of, counts_of, names_of
from jemtrack.errors import InputError, ParameterError
from jemtrack.parameters import (
    FROM_LIST,
    AtLeastOne,
    Count,
    Name,
    PathText,
    Share,
    format_value,
    parameters,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_MITOCHONDRIAL = "MT-"  # how the symbols of these genes begin, mt- in mice
_BINS = 50


@parameters
class CellArgs:
    """The cells, which of them and of their genes are used, and their split.

    Attributes:
        dataset: name of a data set that `jemtrack data` has put into `data_root`.
        data_root: folder with a folder for each data set.
        layer: layer of the .h5ad file that holds the raw counts; null: X.
        batch_key: column of obs with the batch, the technical origin, of each cell.
        label_key: column of obs with the cell types; null: there are none.
        split_key: column of obs that says train, valid or test of each cell; null: it is drawn.
        unlabelled: names in `label_key` that stand for an unknown type.
        min_genes: genes that a cell has at least.
        min_counts: counts that a cell has at least; 0: off.
        max_counts: counts that a cell has at most; 0: off.
        max_mito: share of a cell's counts in mitochondrial genes at most; 0: off.
        min_cells: training cells that a gene is in at least.
        n_top_genes: highly variable genes to choose, by the training cells (Seurat v3).
        hvg_by_batch: rank the genes in each batch, and take the median rank.
        span: share of the genes in each local regression of variance on mean.
        test_share: share of the cells to hold out.
        valid_share: share of the others to validate on.
        min_stratum: a batch and type with fewer cells than this is not split, but trained on.
        seed: of the split, and of the trainers' initialisation, batches and noise.
    """

    dataset: Name = "synthetic"
    data_root: PathText = "data"
    layer: str | None = None
    batch_key: str = BATCH
    label_key: str | None = LABEL
    split_key: str | None = None
    unlabelled: Annotated[tuple[str, ...], FROM_LIST] = (
        "unknown",
        "unassigned",
        "not applicable",
        "dropped",
        "unclear",
        "unclassified",
    )
    min_genes: Count = 200
    min_counts: Count = 0
    max_counts: Count = 0
    max_mito: Share = 0.0
    min_cells: AtLeastOne = 10
    n_top_genes: AtLeastOne = 2000
    hvg_by_batch: bool = True
    span: Annotated[float, Field(gt=0, le=1)] = 0.3
    test_share: Share = 0.2
    valid_share: Share = 0.1
    min_stratum: AtLeastOne = 5
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1

    @property
    def folder(self) -> Path:
        """The folder of the data set's files."""
        return Path(self.data_root) / self.dataset


class Prepared(NamedTuple):
    """Prepared cells, a table of all their genes, numbers of each filter and part, warnings."""

    cells: AnnData
    genes: pd.DataFrame
    quality: pd.DataFrame
    facts: dict[str, Any]
    warnings: list[str]


def prepare_cells(raw: AnnData, args: CellArgs, file: str) -> Prepared:
    """Check, filter and split the cells read from `file`, and choose their genes.

    A cell is kept or left out by itself. Genes are filtered and ranked by the training cells.

    Raises:
        InputError: if the file holds no counts, or a column or a value is missing.
        ParameterError: if a parameter does not fit the cells.
    """
    import pandas as pd
    from anndata import AnnData

    counts_NG = counts_of(raw, args.layer, file)
    obs = pd.DataFrame(
        {BATCH: batches_of(raw, args.batch_key, file), LABEL: _labels(raw, args, file)},
        index=raw.obs_names.astype(str),
    )
    obs[TOTAL] = np.asarray(counts_NG.sum(axis=1), dtype=np.int64).ravel()
    passed = dict(_cell_filters(counts_NG, obs[TOTAL].to_numpy(), raw.var_names, args))
    kept_N = np.logical_and.reduce(list(passed.values()))
    if not kept_N.any():
        counts = ", ".join(f"{name} {int((~each).sum())}" for name, each in passed.items())
        raise InputError(f"{file}: no cell of {len(kept_N)} is left; left out by {counts}")
    quality = _quality(obs)
    obs = obs[kept_N].copy()
    obs[SPLIT] = _given_split(raw, args, file)[kept_N] if args.split_key else _split(obs, args)
    train_N = (obs[SPLIT] == TRAIN).to_numpy()
    if not train_N.any():
        raise InputError(f"{file}: no cell is for training, after the filters, of {len(obs)}")
    # The counts may be most of the memory: there is no copy of all that are kept.
    trained = np.flatnonzero(kept_N)[train_N]
    genes = _genes(counts_NG[trained], obs[BATCH][train_N], raw.var_names.astype(str), args)
    chosen_G = genes["chosen"].to_numpy()
    for column in (BATCH, LABEL, SPLIT):
        obs[column] = pd.Categorical(obs[column])
    chosen_NG = counts_NG[:, chosen_G][kept_N]
    cells = AnnData(chosen_NG, obs=obs, var=genes[chosen_G].drop(columns="chosen"))
    for name, embedding in raw.obsm.items():
        if isinstance(embedding, np.ndarray):
            cells.obsm[name] = embedding[kept_N]
    cells.uns[NOTES] = {"dataset": args.dataset, "seed": args.seed}
    facts = _facts(passed, cells, genes)
    return Prepared(cells, genes, quality, facts, [*_warnings(cells, args)])


def _facts(passed: dict[str, np.ndarray], cells: AnnData, genes: pd.DataFrame) -> dict[str, Any]:
    """Count the cells and genes that each step left."""
    return {
        "cells_read": len(passed["empty"]),
        "left_out": {name: int((~each).sum()) for name, each in passed.items()},
        "cells": {part: int((cells.obs[SPLIT] == part).sum()) for part in PARTS},
        "genes": {
            "read": len(genes),
            "expressed": int(genes["expressed"].sum()),
            "chosen": int(genes["chosen"].sum()),
        },
    }


def _labels(raw: AnnData, args: CellArgs, file: str) -> Any:
    if args.label_key is None:
        return None
    labels_N = names_of(raw, args.label_key, "label_key", file)
    unknown = {name.casefold() for name in args.unlabelled}
    return labels_N.where(~labels_N.str.casefold().isin(unknown), None)


def _cell_filters(
    counts_NG: sparse.csr_matrix, totals_N: np.ndarray, genes: Any, args: CellArgs
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each filter that is on, and which cells pass it."""
    yield "empty", totals_N > 0
    yield "min_genes", np.diff(counts_NG.indptr) >= args.min_genes
    if args.min_counts:
        yield "min_counts", totals_N >= args.min_counts
    if args.max_counts:
        yield "max_counts", totals_N <= args.max_counts
    if args.max_mito:
        mito_G = genes.astype(str).str.upper().str.startswith(_MITOCHONDRIAL)
        if not mito_G.any():
            raise ParameterError(
                f"max_mito must be 0: no gene has a name that begins with {_MITOCHONDRIAL}, "
                f"got {args.max_mito}"
            )
        mito_N = np.asarray(counts_NG[:, mito_G].sum(axis=1)).ravel()
        yield "max_mito", mito_N <= args.max_mito * totals_N


def _split(obs: pd.DataFrame, args: CellArgs) -> np.ndarray:
    """Draw the part of each cell: the same shares of each batch and type that is large enough."""
    parts_N = np.full(len(obs), TRAIN, dtype=object)
    draws_N = np.random.default_rng(args.seed).random(len(obs))
    strata = obs.groupby([BATCH, LABEL], dropna=False, sort=True).indices
    for members in map(np.asarray, strata.values()):
        if len(members) < args.min_stratum:
            continue
        shuffled = members[np.argsort(draws_N[members])]
        n_test = round(args.test_share * len(members))
        n_valid = round(args.valid_share * (len(members) - n_test))
        parts_N[shuffled[:n_test]] = TEST
        parts_N[shuffled[n_test : n_test + n_valid]] = VALID
    return parts_N


def _given_split(raw: AnnData, args: CellArgs, file: str) -> np.ndarray:
    assert args.split_key is not None
    parts_N = names_of(raw, args.split_key, "split_key", file)
    wrong_N = ~parts_N.isin(PARTS)
    if wrong_N.any():
        cell, value = parts_N.index[wrong_N][0], parts_N[wrong_N].iloc[0]
        raise InputError(
            f"{file}: obs[{args.split_key!r}] must be one of {', '.join(PARTS)}, got "
            f"{format_value(value)} (cell {cell})"
        )
    return parts_N.to_numpy(dtype=object)


def _genes(train_NG: sparse.csr_matrix, batches_N: Any, names: Any, args: CellArgs) -> pd.DataFrame:
    """Describe all genes by the training cells, and mark those that are `chosen`."""
    import pandas as pd

    n_cells_G = train_NG.getnnz(axis=0)
    expressed_G = n_cells_G >= args.min_cells
    if args.n_top_genes > (n_left := int(expressed_G.sum())):
        raise ParameterError(
            f"n_top_genes must be <= {n_left}, the genes in {args.min_cells} training cells or "
            f"more (min_cells), got {args.n_top_genes}"
        )
    genes = pd.DataFrame(
        {"n_cells": n_cells_G, "expressed": expressed_G}, index=pd.Index(names, name="gene")
    )
    train_NG = train_NG[:, expressed_G]
    ranked = _ranked(train_NG, batches_N, args)
    for column in ("means", "variances", "variances_norm", "highly_variable_rank"):
        genes.loc[expressed_G, column] = ranked[column].to_numpy()
    genes["chosen"] = False
    genes.loc[expressed_G, "chosen"] = ranked["highly_variable"].to_numpy(dtype=bool)
    return genes


def _ranked(counts_NG: sparse.csr_matrix, batches_N: Any, args: CellArgs) -> pd.DataFrame:
    """Rank genes by their variance, standardised for their mean (Stuart et al. 2019).

    Raises:
        ParameterError: if the regression is singular in a batch.
    """
    batches = sorted(set(batches_N)) if args.hvg_by_batch else []
    try:
        return _seurat_v3(counts_NG, args, batches_N if len(batches) > 1 else None)
    except ValueError as error:
        # Loess says no more than "near singularities".
        singular = [each for each in batches if not _is_regular(counts_NG, batches_N, each, args)]
        raise ParameterError(
            f"hvg_by_batch must be false, or span larger, got {args.hvg_by_batch} and {args.span}: "
            f"the variance of genes cannot be regressed on their mean in "
            f"{', '.join(singular) or 'all training cells'} ({str(error).strip()})"
        ) from error


def _is_regular(counts_NG: sparse.csr_matrix, batches_N: Any, batch: str, args: CellArgs) -> bool:
    try:
        _seurat_v3(counts_NG[(batches_N == batch).to_numpy()], args, None)
    except ValueError:
        return False
    return True


def _seurat_v3(counts_NG: sparse.csr_matrix, args: CellArgs, batches_N: Any) -> pd.DataFrame:
    import pandas as pd
    from anndata import AnnData
    from scanpy.preprocessing import highly_variable_genes

    obs = None if batches_N is None else pd.DataFrame({BATCH: pd.Categorical(batches_N)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranked: pd.DataFrame = highly_variable_genes(
            AnnData(counts_NG, obs=obs),
            flavor="seurat_v3",
            n_top_genes=args.n_top_genes,
            span=args.span,
            batch_key=None if batches_N is None else BATCH,
            check_values=False,
            inplace=False,
        )
    return ranked


def _quality(obs: pd.DataFrame) -> pd.DataFrame:
    """Count cells by their counts (log10), batch by batch."""
    import pandas as pd

    logs_N = np.log10(obs[TOTAL].clip(lower=1))
    edges = np.linspace(0, max(float(logs_N.max()), 1), _BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    batches = obs[BATCH].to_numpy()
    tables = [
        pd.DataFrame(
            {
                "log10_counts": centres.round(4),
                "cells": np.histogram(logs_N[batches == batch], edges)[0],
                BATCH: batch,
            }
        )
        for batch in sorted(set(batches))
    ]
    return pd.concat(tables, ignore_index=True)


def _warnings(cells: AnnData, args: CellArgs) -> Iterator[str]:
    """Yield what is sound, and yet may not be meant."""
    train = cells.obs[cells.obs[SPLIT] == TRAIN]
    if train[BATCH].nunique() == 1:
        yield f"all training cells are of the batch {train[BATCH].iloc[0]}: there is none to remove"
    batches = train.groupby(LABEL, observed=True)[BATCH].nunique()
    if train[BATCH].nunique() > 1 and (alone := [*map(str, batches[batches == 1].index)]):
        yield f"{', '.join(alone)}: in one batch alone, so that its effect and theirs are one"
    for column in (BATCH, LABEL):
        known = set(train[column].dropna())
        if new := sorted(set(cells.obs[column].dropna()) - known):
            yield f"{column} {', '.join(new)}: no training cell has it"
    sizes = cells.obs.groupby([BATCH, LABEL], observed=True, dropna=False).size()
    small = [" of ".join(map(str, key[::-1])) for key in sizes[sizes < args.min_stratum].index]
    if small and not args.split_key:
        yield f"{', '.join(small)}: fewer than {args.min_stratum} cells, trained on and not split"
    empty_N = np.asarray(cells.X.sum(axis=1)).ravel() == 0
    if empty_N.any():
        first = cells.obs_names[empty_N][0]
        yield f"{empty_N.sum()} cells have no count in the chosen genes, such as {first}"
