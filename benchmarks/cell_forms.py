"""Train the forms of inVAE on prepared cells over several seeds, and measure them.

`python benchmarks/cell_forms.py FILE`, of a file that PrepareCells wrote, prints means and standard
deviations over the seeds of training; the split is that of the file.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jemtrack.data.cells.cells import LABEL, SPLIT, TEST, TRAIN, Cells, CellSplits, read_prepared
from jemtrack.evaluation.integration import integration_scores
from jemtrack.invae.inference import latents
from jemtrack.stages.evaluate_cells import principal_components
from jemtrack.stages.train_invae import InVAEArgs
from jemtrack.train.launch import Runtime
from jemtrack.train.recipe import Recipe
from jemtrack.train.run import Training

FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "no labels": {"labels_in_prior": False},
    "published": {
        "batch_in_decoder": "none",
        "labels_in_encoder": True,
        "batch_in_encoder": True,
    },
}
SHOWN = {
    "bio": "types",
    "ilisi": "iLISI",
    "pcr": "PCR",
    "batch": "batches",
    "total": "total of nine",
}


def embedded(data: CellSplits, cells: Cells, form: Mapping[str, Any], seed: int) -> np.ndarray:
    """Train a form with this seed, and embed all cells."""
    params = InVAEArgs(**form, device="cpu", eval_every=10_000)
    training = Training(
        name="form",
        family=params.family,
        recipe=Recipe(steps=(params.ordinary_step(),)),
        model=params,
        settings=params,
        data=dataclasses.replace(data, seed=seed),
        runtime=Runtime(torch.device("cpu")),
    )
    training.train((), None)
    network: Any = training.state.models["network"]
    return latents(network, cells).z_i_NZ.numpy()


def mean_and_spread(values: np.ndarray) -> str:
    """Write the mean and, of several values, their standard deviation."""
    spread = f" ({values.std(ddof=1):.3f})" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def measured(path: Path, n_seeds: int, n_epochs: int) -> None:
    """Print a row for each form, and for principal components: held-out cells, then all."""
    data, prepared = CellSplits.load(path), read_prepared(path)
    cells = Cells.of(prepared, data.vocabulary)
    labelled = prepared.obs[LABEL].notna().to_numpy()
    held_out = labelled & (prepared.obs[SPLIT] == TEST).to_numpy()
    components = principal_components(cells, (prepared.obs[SPLIT] == TRAIN).to_numpy(), 30)
    labels = prepared.obs[LABEL].cat.codes.to_numpy()

    def scores(embedding: np.ndarray, chosen: np.ndarray) -> list[float]:
        parts = (embedding, components, labels, cells.batches_N)
        found = integration_scores(*(part[chosen] for part in parts))
        return [found[name] for name in SHOWN]

    def show(name: str, embeddings: list[np.ndarray]) -> None:
        for kind, chosen in (("held-out", held_out), ("all", labelled)):
            table = np.array([scores(embedding, chosen) for embedding in embeddings])
            columns = " | ".join(mean_and_spread(values) for values in table.T)
            print(f"| {name} | {kind} | {columns} |", flush=True)

    print(f"| | cells | {' | '.join(SHOWN.values())} |")
    print(f"|{'---|' * (len(SHOWN) + 2)}")
    show("principal components", [components])
    for name, form in FORMS.items():
        options = {**form, "n_epochs": n_epochs}
        show(name, [embedded(data, cells, options, seed) for seed in range(1, n_seeds + 1)])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a file that PrepareCells wrote")
    parser.add_argument("--seeds", type=int, default=5, help="of training (%(default)s)")
    parser.add_argument("--epochs", type=int, default=InVAEArgs().n_epochs, help="(%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured(options.path, options.seeds, options.epochs)


if __name__ == "__main__":
    main()
