"""The stage PrepareCells: filter cells, split them and choose genes by the training cells."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zntrack

from jemtrack.data.cells.prepare import CellArgs, prepare_cells
from jemtrack.data.cells.sources import CELL_SOURCES, read_cells
from jemtrack.files import atomic_write
from jemtrack.project.results import ResultTracking
from jemtrack.shared.progress import say
from jemtrack.stages.stage import Stage, plot


class PrepareCells(Stage):
    """Prepare the counts of single cells for training and evaluation.

    Attributes:
        params: which cells and genes.
        cells: an .h5ad file: counts of the chosen genes in X; batch, cell_type, split and
            total_counts, over all genes, in obs.
        genes: what the training cells say of every gene, and which are chosen.
        quality: how many cells have how many counts, by batch, before the filters.
        metrics: how many cells and genes each step left.
    """

    params: CellArgs = zntrack.deps(default_factory=CellArgs)
    cells: Path = zntrack.outs_path(zntrack.nwd / "cells.h5ad")
    genes: Path = zntrack.outs_path(zntrack.nwd / "genes.csv")
    quality: Path = plot(zntrack.nwd / "quality.csv", x="log10_counts", y="cells")
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics.json", cache=False)

    def compute(self) -> None:
        """Read the files, prepare the cells, and write them to one .h5ad file."""
        tracking = ResultTracking(self.name)
        folder = self.params.folder
        say(f"Reading {folder}")
        raw = read_cells(self.params.dataset, folder)
        prepared = prepare_cells(raw, self.params, str(folder))
        for warning in prepared.warnings:
            say(f"{self.name}: {warning}")
        atomic_write(self.cells, prepared.cells.write_h5ad)
        prepared.genes.to_csv(self.genes)
        prepared.quality.to_csv(self.quality, index=False)
        self.metrics.write_text(json.dumps(prepared.facts, indent=2) + "\n")
        parts = ", ".join(f"{count} {part}" for part, count in prepared.facts["cells"].items())
        say(f"{parts} cells of {prepared.cells.n_vars} genes")
        tracking.send({"params": self.params}, prepared.facts, [self.genes])

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Return the folder of this data set alone: another data set leaves the stage as it is."""
        params = parameters["params"]
        return [Path(str(params["data_root"]), str(params["dataset"])).as_posix()]

    @classmethod
    def unpinned_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Return the folder of cells that no checksum in the code is for."""
        is_known = parameters["params"]["dataset"] in CELL_SOURCES
        return [] if is_known else cls.input_paths(parameters)
