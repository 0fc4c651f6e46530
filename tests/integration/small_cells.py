"""A small graph of single cells, in a project."""

from dataclasses import replace
from pathlib import Path

from project import Project

from jemtrack.data.cells.synthetic import SyntheticCells

STAGES = ["PrepareCells", "TrainInVAE", "EvaluateCells"]
FOLDER = "workflows/single-cell"
SMALL = {
    "PrepareCells.params.dataset": "mine",
    "PrepareCells.params.min_genes": 5,
    "PrepareCells.params.min_cells": 3,
    "PrepareCells.params.n_top_genes": 60,
    "PrepareCells.params.hvg_by_batch": False,
    "TrainInVAE.params.hidden": 16,
    "TrainInVAE.params.n_epochs": 2,
    "TrainInVAE.params.threads": 1,
    "EvaluateCells.params.compare": ["X_true"],
    "EvaluateCells.params.projection": "pca",
    "EvaluateCells.params.iwae_samples": 3,
    "EvaluateCells.params.threads": 1,
}


def small_cells(project: Project, raw: Path) -> Project:
    """Draw cells into the file `raw`; return the folder of a graph of them, of small parameters."""
    sizes = {"n_cells": 400, "n_genes": 150, "n_types": 3, "n_batches": 2}
    SyntheticCells(**sizes, counts_per_cell=400.0).draw().write_h5ad(raw)
    project.run("jemtrack", "data", "mine", "--from", str(raw))
    project.run("jemtrack", "graph", "--workflow", "single-cell")
    graph = replace(project, path=project.path / FOLDER)
    for name, value in SMALL.items():
        graph.set(name, value)
    project.run("jemtrack", "graph", "--workflow", "single-cell")
    return graph
