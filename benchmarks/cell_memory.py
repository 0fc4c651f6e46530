"""Measure the memory that preparing and training of many cells take.

`python benchmarks/cell_memory.py` draws 100,000 cells of 20,000 genes, of whose counts 5% are not
zero, into a file in sparse rows; prepares them with the parameters that PrepareCells ships with;
and trains inVAE on them for an epoch. Each is a process of its own, whose peak of resident memory,
with Python and all libraries, is printed.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_CELLS, N_GENES, SHARE = 100_000, 20_000, 0.05
_AT_ONCE = 1000
STEPS = ("draw", "prepare", "train")


def draw(raw: Path, prepared: Path) -> None:
    """Write cells of three batches and four types, some thousand at once."""
    import anndata
    import h5py
    import pandas as pd

    random = np.random.default_rng(1)
    codes_N = random.integers(12, size=N_CELLS)
    obs = pd.DataFrame(
        {"batch": pd.Categorical(codes_N % 3), "cell_type": pd.Categorical(codes_N // 3)}
    ).astype(str)
    obs.index = [f"cell{number}" for number in range(N_CELLS)]
    genes = pd.DataFrame(index=[f"gene{number}" for number in range(N_GENES)])
    anndata.AnnData(obs=obs, var=genes).write_h5ad(raw)
    shares_G = random.dirichlet(np.full(N_GENES, 2.0)) * SHARE * N_GENES
    by_code = np.clip(shares_G * random.uniform(0.5, 1.5, size=(12, N_GENES)), 0, 0.9)
    with h5py.File(raw, "a") as file:
        if "X" in file:
            del file["X"]
        group = file.create_group("X")
        group.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
            | {"shape": np.array([N_CELLS, N_GENES])}
        )
        parts = {
            name: group.create_dataset(name, (0,), np.int32, maxshape=(None,), chunks=(2**20,))
            for name in ("data", "indices")
        }
        lengths = [0]
        for first in range(0, N_CELLS, _AT_ONCE):
            part = codes_N[first : first + _AT_ONCE]
            drawn = random.random((len(part), N_GENES), dtype=np.float32)
            rows, columns = np.nonzero(drawn < by_code[part])
            counts = 1 + random.poisson(0.5, size=len(rows))
            for name, values in (("data", counts), ("indices", columns)):
                parts[name].resize((lengths[-1] + len(rows),))
                parts[name][lengths[-1] :] = values
            lengths += [*(lengths[-1] + np.cumsum(np.bincount(rows, minlength=len(part))))]
        group.create_dataset("indptr", data=np.array(lengths, dtype=np.int64))


def prepare(raw: Path, prepared: Path) -> None:
    """Do what PrepareCells does."""
    from jemtrack.data.cells.cells import read_h5ad
    from jemtrack.data.cells.prepare import CellArgs, prepare_cells

    prepare_cells(read_h5ad(raw), CellArgs(dataset="many"), str(raw)).cells.write_h5ad(prepared)


def train(raw: Path, prepared: Path) -> None:
    """Do what TrainInVAE does, for an epoch."""
    import torch

    from jemtrack.data.cells.cells import CellSplits
    from jemtrack.stages.train_invae import InVAEArgs
    from jemtrack.train.launch import Runtime
    from jemtrack.train.recipe import Recipe
    from jemtrack.train.run import Training

    params = InVAEArgs(n_epochs=1, device="cpu", threads=1)
    torch.set_num_threads(1)
    Training(
        name="many",
        family=params.family,
        recipe=Recipe(steps=(params.ordinary_step(),)),
        model=params,
        settings=params,
        data=CellSplits.load(prepared),
        runtime=Runtime(torch.device("cpu")),
    ).train((), None)


def main() -> None:
    """Run a step, or each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="for the files (one that is removed)")
    parser.add_argument("--step", choices=STEPS, help="run this alone (all)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        files = (folder / "raw.h5ad", folder / "prepared.h5ad")
        if options.step:
            since = time.perf_counter()
            {"draw": draw, "prepare": prepare, "train": train}[options.step](*files)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of KiB, on Linux
            sizes = " and ".join(f"{f.stat().st_size / 2**30:.2f}" for f in files if f.exists())
            print(
                f"{options.step}: {peak:.2f} GiB in {time.perf_counter() - since:.0f} s; "
                f"files of {sizes} GiB",
                flush=True,
            )
            return
        for step in STEPS:
            command = [sys.executable, __file__, "--folder", str(folder), "--step", step]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
