"""The graph of single cells: PrepareCells -> TrainInVAE -> EvaluateCells."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from jemtrack.data.cells.prepare import CellArgs
from jemtrack.data.cells.sources import SYNTHETIC
from jemtrack.errors import InputError
from jemtrack.parameters import suggestion
from jemtrack.project import graph as files
from jemtrack.project.graph import ROOT, workflow_folder
from jemtrack.project.params import PARAMS
from jemtrack.project.revisions import Revision, StageOutput
from jemtrack.stages.evaluate_cells import EvaluateCells
from jemtrack.stages.prepare_cells import PrepareCells
from jemtrack.stages.stage import Stage
from jemtrack.stages.train_invae import TrainInVAE

FOLDER = "single-cell"


def nodes(dataset: str = SYNTHETIC) -> list[Stage]:
    """Declare the stages with the parameters that they ship with."""
    prepared = PrepareCells(params=CellArgs(dataset=dataset, data_root=str(ROOT / "data")))
    trained = TrainInVAE(data=prepared.cells)
    return [prepared, trained, EvaluateCells(data=prepared.cells, model=trained.model)]


def write_graph(dataset: str = SYNTHETIC, *, run: bool = False, skip: Collection[str] = ()) -> None:
    """Write the graph into `workflows/single-cell/`, from the project's root; `run` it if asked.

    What was changed in its files by hand stays. Stages named in `skip` do not run.
    """
    with workflow_folder(FOLDER):
        files.write_graph(nodes(dataset), run=run, skip=skip)


def run_pipeline(
    parameters: Mapping[str, Any] | None = None,
    *,
    dataset: str = SYNTHETIC,
    skip: Collection[str] = (),
) -> dict[str, StageOutput]:
    """Write the graph and reproduce it, but the stages to `skip`; return what each stage made.

    `parameters` are set in its params.yaml first, by their paths: `TrainInVAE.params.z_i_dim`.
    Stages that are skipped are not returned.

    Raises:
        InputError: if there is no such parameter or stage, or a stage fails.
    """
    write_graph(dataset)
    with workflow_folder(FOLDER):
        _set_parameters(parameters or {})
        stages = nodes(dataset)
        files.write_graph(stages, run=True, skip=skip)
        here = Revision()
        return {each.name: here.stage(each.name) for each in stages if each.name not in skip}


def _set_parameters(values: Mapping[str, Any]) -> None:
    """Change values of params.yaml, as `dvc exp run --set-param` does."""
    from dvc.utils.hydra import apply_overrides

    for path in values:
        section: Any = Revision().params()
        for name in path.split("."):
            if not isinstance(section, Mapping) or name not in section:
                names = section if isinstance(section, Mapping) else ()
                raise InputError(f"{PARAMS} has no {path}; {suggestion(name, names)}")
            section = section[name]
    apply_overrides(PARAMS, [f"{path}={json.dumps(value)}" for path, value in values.items()])
