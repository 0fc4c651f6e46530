"""The graph of single cells: PrepareCells -> TrainInVAE -> EvaluateCells."""

from jemtrack.data.cells.prepare import CellArgs
from jemtrack.project import graph as files
from jemtrack.project.graph import ROOT, workflow_folder
from jemtrack.stages.evaluate_cells import EvaluateCells
from jemtrack.stages.prepare_cells import PrepareCells
from jemtrack.stages.stage import Stage
from jemtrack.stages.train_invae import TrainInVAE

FOLDER = "single-cell"


def nodes() -> list[Stage]:
    """Declare the stages with the parameters that they ship with."""
    prepared = PrepareCells(params=CellArgs(data_root=str(ROOT / "data")))
    trained = TrainInVAE(data=prepared.cells)
    return [prepared, trained, EvaluateCells(data=prepared.cells, model=trained.model)]


def write_graph(*, run: bool = False) -> None:
    """Write the graph into `workflows/single-cell/`, from the project's root; `run` it if asked.

    What was changed in its files by hand stays.
    """
    with workflow_folder(FOLDER):
        files.write_graph(nodes(), run=run)
