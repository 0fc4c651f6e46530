"""The graph, written from Python as scripts and notebooks do."""

import shutil
import sys
from pathlib import Path

from project import Project

WRITE_NODES = """
import shutil

from jemtrack.errors import InputError
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.prepare_data import DataArgs, PrepareData

node = PrepareData(name="Few_valid", params=DataArgs(n_valid=17))
node.write_graph()
node.write_graph(no_exec=True)
assert not node.images.exists()
node.write_graph(run=True)
assert node.images.exists()
shutil.rmtree(node.nwd)
node.write_graph(no_exec=False)
assert node.images.exists()

node = MaxEntropyL1(name="Alone", data="nodes/Absent/images.safetensors")
node.write_graph()
try:
    node.write_graph(run=True)
except InputError as error:
    print("refused:", error)
"""
LOOK_BACK = """
import zntrack

for rev in (None, "HEAD"):
    node = zntrack.from_rev("MaxEntropyL1", rev=rev)
    prepared = zntrack.from_rev("PrepareData", rev=rev)
    print(node.name, node.params.lr, node.params.width, node.objective.entropy_weight, end=" ")
    print(type(node.params).__name__, prepared.params.n_valid, node.model, node.data)
    with node.state.fs.open(node.metrics) as file:
        assert b"valid_nll" in file.read()
"""


def outside_of_an_active_environment() -> dict[str, str]:
    """Name the folders of git and the shell, and not the one of Python's environment."""
    folders = {str(Path(shutil.which(name) or "").parent) for name in ("git", "sh")}
    assert not any((Path(folder) / "zntrack").exists() for folder in folders)
    return {"PATH": ":".join(sorted(folders))}


def script(project: Project, source: str) -> str:
    """Run a script by the path of its Python alone."""
    (project.path / "script.py").write_text(source)
    return project.run(sys.executable, "script.py", env=outside_of_an_active_environment())


def test_nodes_are_written_and_run_from_a_script(project: Project):
    """One can be declared before what it reads, but then not run."""
    said = script(project, WRITE_NODES)

    assert "Running stage 'Few_valid'" in said
    assert "Warning" not in said
    assert project.read("nodes/Few_valid/resources.json")["seconds"] >= 0
    assert not (project.path / "nodes" / "PrepareData").exists()
    assert "Few_valid" in project.run("zntrack", "list")

    assert "nodes/Absent/images.safetensors" in said
    assert "refused: `dvc repro Alone` failed" in said
    assert "Alone" in project.read("dvc.yaml")["stages"]


def test_the_whole_graph_is_written_and_what_is_stale_is_run(reproduced: Project):
    reproduced.run("dvc", "freeze", "MaxEntropyL2")
    reproduced.run("dvc", "remove", "EvaluateX")
    assert "EvaluateX" not in reproduced.read("dvc.yaml")["stages"]

    said = script(
        reproduced, "from jemtrack.workflows.default import write_graph\nwrite_graph(run=True)\n"
    )

    assert "Running stage" not in said.replace("Running stage 'EvaluateX'", "")
    stages = reproduced.read("dvc.yaml")["stages"]
    assert stages["MaxEntropyL2"]["frozen"] is True
    assert "frozen" not in stages["MaxEntropyL1"]
    reproduced.run("dvc", "unfreeze", "MaxEntropyL2")
    assert reproduced.repro() == []


def test_a_node_of_the_past_can_be_looked_at(reproduced: Project):
    reproduced.set("MaxEntropyL1.params.lr", 0.5)

    now, then = script(reproduced, LOOK_BACK).strip().splitlines()

    rest = (
        "1 1.0 TrainArgs 180 nodes/MaxEntropyL1/model.safetensors "
        "nodes/PrepareData/images.safetensors"
    )
    committed = then.split()[1]
    assert now == f"MaxEntropyL1 0.5 {rest}"
    assert then == f"MaxEntropyL1 {committed} {rest}"
    assert float(committed) < 0.5
