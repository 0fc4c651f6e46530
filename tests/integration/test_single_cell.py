"""The graph of single cells: real commands, a training that is killed, and what makes it stale."""

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
from killing import killed, start, steps_saved, training_of, wait_for_steps
from project import Project
from small_cells import STAGES, small_cells

MODEL = "nodes/TrainInVAE/model.safetensors"


@pytest.fixture
def cells(project: Project, tmp_path: Path) -> Project:
    return small_cells(project, tmp_path / "raw.h5ad")


def test_the_graph_runs_and_reruns_what_a_parameter_changes(cells: Project, tmp_path: Path):
    assert "3 stages" in cells.run("jemtrack", "check")
    assert cells.repro() == STAGES
    assert cells.repro() == []

    metrics = json.loads((cells.path / "nodes/EvaluateCells/metrics.json").read_text())
    assert {"X_inVAE", "X_pca", "X_true", "nll", "nll_given_label"} == {*metrics["held_out"]} - {
        "elbo",
        "elbo_given_label",
    }
    # The state that the cells were drawn by has no batch effect.
    assert metrics["all"]["X_true"]["ilisi"] > metrics["all"]["X_pca"]["ilisi"]
    assert metrics["held_out"]["nll"] < -metrics["held_out"]["elbo"]
    embedded = anndata.read_h5ad(cells.path / "nodes/EvaluateCells/embedded.h5ad")
    assert embedded.obsm["X_inVAE"].shape == (embedded.n_obs, 30)
    assert "Held-out cells" in (cells.path / "nodes/EvaluateCells/report.html").read_text()
    cells.set("TrainInVAE.params.z_i_dim", 4)
    assert cells.repro() == STAGES[1:]
    cells.set("PrepareCells.params.n_top_genes", 50)
    assert cells.repro() == STAGES
    # New cells, without labels or batches, are embedded as those of the evaluation are.
    new = anndata.read_h5ad(tmp_path / "raw.h5ad")
    new.obs = new.obs[[]]
    new[:, ::-1].copy().write_h5ad(cells.path / "new_cells.h5ad")
    node = "from jemtrack.stages.map_cells import MapCells; "
    code = f"{node}MapCells(model='{MODEL}').write_graph()"
    cells.run("python", "-c", code)
    assert cells.repro() == ["MapCells"]
    mapped = anndata.read_h5ad(cells.path / "nodes/MapCells/embedded.h5ad")
    embedded = anndata.read_h5ad(cells.path / "nodes/EvaluateCells/embedded.h5ad")
    found = mapped[embedded.obs_names].obsm["X_inVAE"]
    np.testing.assert_allclose(found, embedded.obsm["X_inVAE"], rtol=1e-4, atol=1e-5)
    # A supplied file and a supplied model serve as those of the graph do (S7).
    for supplied in ("nodes/PrepareCells/cells.h5ad", MODEL):
        shutil.copy(cells.path / supplied, cells.path / Path(supplied).name)
    own = "from pathlib import Path; from jemtrack.stages.evaluate_cells import *; p = CellEvalArgs"
    params = "p(compare=('X_true',), projection='pca', iwae_samples=3, threads=1)"
    node = f"EvaluateCells(name='Own', data=Path('cells.h5ad'), model=Path('{Path(MODEL).name}'),"
    cells.run("python", "-c", f"{own}; {node} params={params}).write_graph()")
    assert cells.repro("Own") == ["Own"]
    scores = [cells.path / "nodes" / name / "scores.csv" for name in ("Own", "EvaluateCells")]
    assert scores[0].read_text() == scores[1].read_text()


def test_a_killed_training_ends_with_the_same_bytes(cells: Project):
    cells.set("TrainInVAE.params.n_epochs", 60)
    cells.repro("TrainInVAE")
    whole = (cells.path / MODEL).read_bytes()
    with killed(start(cells, "dvc", "repro", "--force", "--single-item", "TrainInVAE")) as process:
        wait_for_steps(cells, 20, process)
        training_of(cells).kill()
        process.wait()
    assert steps_saved(cells) >= 20
    assert not (cells.path / MODEL).exists()

    output = cells.run("dvc", "repro", "--force", "--single-item", "TrainInVAE")

    assert "resum" in output
    assert (cells.path / MODEL).read_bytes() == whole
