"""Single cells: stages killed at random, and one call that runs all, with trackers."""

import hashlib
import json
import random
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
import yaml
from killing import killed, start
from mlflow import MlflowClient
from project import Project
from small_cells import STAGES, small_cells
from test_resume import kill_all

N_KILLS = 20
MADE = {
    "PrepareCells": ["cells.h5ad", "genes.csv", "quality.csv", "metrics.json"],
    "TrainInVAE": ["model.safetensors", "metrics.json", "history.csv"],
    "EvaluateCells": ["embedded.h5ad", "scores.csv", "metrics.json", "embeddings.png"],
}


@pytest.fixture
def cells(project: Project, tmp_path: Path) -> Project:
    return small_cells(project, tmp_path / "raw.h5ad")


def made(project: Project, stage: str) -> dict[str, str]:
    folder = project.path / "nodes" / stage
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in MADE[stage]}


def mend_what_dvc_tore(cells: Project) -> None:
    """Do what docs/reliability.md says where a DVC was killed while it wrote its own files."""
    cells.run("git", "checkout", "--", "dvc.lock")
    cells.path.parents[1].joinpath(".dvc", "tmp", "rwlock").unlink(missing_ok=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_again_and_again_ends_with_the_same_bytes(cells: Project, stage):
    cells.set("TrainInVAE.params.n_epochs", 20)
    cells.repro()
    cells.commit("results")
    whole, chosen = made(cells, stage), random.Random(stage)
    again = ("dvc", "repro", "--force", "--single-item", stage)
    since = time.monotonic()
    with killed(start(cells, *again)) as process:
        assert process.wait() == 0
    seconds = time.monotonic() - since
    assert made(cells, stage) == whole
    for _ in range(N_KILLS):
        with killed(start(cells, *again)) as process:
            time.sleep(chosen.uniform(0, seconds))
            # A training that has been resumed often enough is done before it can be killed.
            if process.poll() is None:
                kill_all(cells, process)
            process.wait()
        mend_what_dvc_tore(cells)

    cells.run(*again)

    assert made(cells, stage) == whole


def test_one_call_runs_all_its_stages_are_one_group_and_others_are_skipped(cells: Project):
    root = cells.path.parents[1]
    trackers = [{"type": "mlflow"}, {"type": "wandb"}]
    (cells.path / "jemtrack.yaml").write_text(yaml.safe_dump({"trackers": trackers}))
    # On a busy machine, making the database takes longer than a stage waits for its trackers.
    MlflowClient(tracking_uri=f"sqlite:///{cells.path}/mlflow.db").search_experiments()
    # Not warm: there, all commands would be of one process.
    project = Project(root, packages={"PYTHONPATH": str(root / "src")}, warm=False)
    code = """
import json
from jemtrack.workflows.single_cell import run_pipeline
found = run_pipeline({"TrainInVAE.params.z_i_dim": 4, "TrainInVAE.params.lr": 0.002})
for name, output in found.items():
    paths = {path: str(there) for path, there in output.local_paths.items()}
    print("FOUND", name, json.dumps([output.artifacts, output.metadata, paths]))
"""
    lines = project.run("python", "-c", code).splitlines()

    found = {
        line.split()[1]: json.loads(line.split(maxsplit=2)[2])
        for line in lines
        if line.startswith("FOUND")
    }
    assert [*found] == STAGES
    references, metadata, paths = found["TrainInVAE"]
    model = "nodes/TrainInVAE/model.safetensors"
    content = Path(paths[model]).read_bytes()
    assert references[model] == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert metadata["params"]["params"]["z_i_dim"] == 4
    assert metadata["metrics"]["nodes/TrainInVAE/metrics.json"]["valid_loss"] > 0
    with sqlite3.connect(cells.path / "mlflow.db") as database:
        parents = database.execute(
            "SELECT value, count(*) FROM tags WHERE key = 'mlflow.parentRunId' GROUP BY value"
        ).fetchall()
        statuses = database.execute("SELECT DISTINCT status FROM runs").fetchall()
    assert [count for _, count in parents] == [3]
    assert statuses == [("FINISHED",)]
    assert len([*(cells.path / "wandb").glob("offline-run-*")]) == 3

    skipped = ("jemtrack", "graph", "--workflow", "single-cell", "--run", "--skip")
    cells.set("TrainInVAE.params.lr", 0.004)
    output = project.run(*skipped, "PrepareCells", "EvaluateCells")
    assert "Running stage 'TrainInVAE'" in output
    assert "EvaluateCells'" not in output
    assert "did you mean PrepareCells" in project.run(*skipped, "PrepareCell", fails=True)
    unknown = 'run_pipeline({"TrainInVAE.params.z_dim": 4})'
    code = f"from jemtrack.workflows.single_cell import run_pipeline; {unknown}"
    message = project.run("python", "-c", code, fails=True)
    assert "params.yaml has no TrainInVAE.params.z_dim; did you mean z_" in message


SIDE_BY_SIDE = """
from pathlib import Path
from jemtrack.project.graph import write_graph
from jemtrack.stages.train_invae import InVAEArgs, TrainInVAE
shared = Path("nodes/PrepareCells/cells.h5ad")
small = {"hidden": 16, "n_epochs": 2, "threads": 1}
write_graph(
    TrainInVAE(name=f"Z{z}", data=shared, params=InVAEArgs(z_i_dim=z, **small)) for z in (2, 3, 4)
)
"""


def test_models_trained_side_by_side_from_one_preparation_are_those_trained_alone(cells: Project):
    cells.run("python", "-c", SIDE_BY_SIDE)
    cells.commit("three models")
    names = ["Z2", "Z3", "Z4"]

    output = cells.run("jemtrack", "run", *names, "--workers", "3")

    assert output.count("PrepareCells: running") == 1
    models = [cells.path / "nodes" / name / "model.safetensors" for name in names]
    together = [model.read_bytes() for model in models]
    assert cells.repro(*names) == []
    for name, model, content in zip(names, models, together, strict=True):
        cells.run("dvc", "repro", "--force", "--single-item", name)
        assert model.read_bytes() == content


def test_a_supplied_file_is_trained_on_and_nothing_is_prepared(cells: Project):
    cells.repro("PrepareCells")
    shutil.copy(cells.path / "nodes/PrepareCells/cells.h5ad", cells.path / "supplied.h5ad")
    code = SIDE_BY_SIDE.replace("nodes/PrepareCells/cells.h5ad", "supplied.h5ad")
    cells.run("python", "-c", code)
    cells.set("PrepareCells.params.seed", 7)

    assert cells.repro("Z2") == ["Z2"]

    assert json.loads((cells.path / "nodes/Z2/metrics.json").read_text())["valid_loss"] > 0
