"""The stage MapCells: embed new cells with a trained model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import zntrack
from pydantic import Field

from jemtrack.data.cells.cells import UNKNOWN, Cells, read_h5ad, with_genes
from jemtrack.data.cells.raw import counts_of
from jemtrack.errors import InputError
from jemtrack.files import atomic_write
from jemtrack.invae.inference import latents
from jemtrack.invae.model_file import load_model
from jemtrack.parameters import PathText, parameters
from jemtrack.shared.hardware import DEFAULT_THREADS, DeviceName, Threads, chosen_device
from jemtrack.shared.progress import say
from jemtrack.stages.stage import Stage


@parameters
class MapArgs:
    """The new cells.

    Attributes:
        path: an .h5ad file of cells that the model was not trained on.
        layer: layer of the file that holds the raw counts; null: X.
        min_share: share of the model's genes that the file must have; the others count as 0.
        device: auto is a GPU if there is one, else the CPU.
        threads: of the CPU; see `jemtrack.shared.hardware.Hardware`.
    """

    path: PathText = "new_cells.h5ad"
    layer: str | None = None
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    device: DeviceName = "auto"
    threads: Threads = DEFAULT_THREADS


class MapCells(Stage):
    """Embed new cells: genes are matched by name; neither label nor batch is needed.

    Attributes:
        model: the file of a trained model.
        params: the new cells.
        embedded: the file of the new cells, with the embedding in obsm.
    """

    model: Path = zntrack.deps_path()
    params: MapArgs = zntrack.deps(default_factory=MapArgs)
    embedded: Path = zntrack.outs_path(zntrack.nwd / "embedded.h5ad")

    def compute(self) -> None:
        """Match the genes, embed the cells, and write them."""
        params = self.params
        network, vocabulary, _ = load_model(Path(self.model))
        network.to(chosen_device(params.device))
        new = read_h5ad(Path(params.path))
        counts_NG = counts_of(new, params.layer, params.path)
        counts_NG, missing = with_genes(counts_NG, [*map(str, new.var_names)], vocabulary.genes)
        n_genes = len(vocabulary.genes)
        share = 1 - len(missing) / n_genes
        if share < params.min_share:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise InputError(
                f"{params.path}: has {share:.0%} of the model's {n_genes} genes, and must have "
                f"{params.min_share:.0%} (min_share); it lacks {', '.join(missing[:5])}{more}; "
                "name the genes as the training file does"
            )
        if missing:
            say(f"{self.name}: {len(missing)} of {n_genes} genes are missing, and count as 0")
        unknown_N = np.full(new.n_obs, UNKNOWN, dtype=np.int64)
        new.obsm.update(latents(network, Cells(counts_NG, unknown_N, unknown_N)).obsm())
        atomic_write(self.embedded, new.write_h5ad)

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Return the file of the new cells."""
        return [str(parameters["params"]["path"])]
