"""What a command and a stage import before they begin is no more than what they use."""

import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT
from ruamel.yaml import YAML
from stage_runs import SMALL

from jemtrack.data.sources.fetch import fetch
from jemtrack.project import graph as files
from jemtrack.stages.evaluate_x import EvaluateX
from jemtrack.stages.prepare_data import PrepareData
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented
from jemtrack.workflows import default as workflow

# A trainer needs torch's compiler or Fabric in bf16 or several processes alone; `dvc repro` has
# no use for the others, or for the readers of files that are not there.
UNUSED = (
    "torch._dynamo", "torch._inductor", "sympy", "lightning_fabric", "matplotlib", "sklearn",
    "scipy", "wandb", "tensorboard", "sqlalchemy", "IPython", "nbdev", "grimp", "ruamel",
)  # fmt: skip
RUN = """
import sys
sys.modules["mlflow"] = None  # which ZnTrack imports wherever it is installed
from zntrack.cli import app
import jemtrack.stages.prepare_data
for command in sys.argv[1:]:
    sys.argv = ["zntrack", *command.split()]
    try:
        app()
    except SystemExit as end:
        assert not end.code, end
print("imported:", *{name.partition(".")[0] for name in sys.modules} | {*sys.modules})
"""
BEGINS = """
import importlib, sys
import torch, zntrack
for name in sys.argv[1:]:
    importlib.import_module(name)
print("imported:", *{name.partition(".")[0] for name in sys.modules} | {*sys.modules})
"""
NOTHING = "import sys; print('imported:', *sys.modules)"
HELP = """
import sys
from jemtrack.commands.main import main
try:
    main(["--help"])
except SystemExit:
    print("imported:", *{name.partition(".")[0] for name in sys.modules})
"""


def imported(program: str, *arguments: str) -> set[str]:
    """Name the modules that a program has imported in the end."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {*done.stdout.rpartition("imported:")[2].split()}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graph of one trainer, its images prepared, and the commands of the other two stages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    Path("src").mkdir()
    fetch("digits", Path("data"))
    prepared = PrepareData()
    trainer = XEntropyAugmented(data=prepared.images, params=TrainArgs(**{**SMALL, "n_steps": 1}))
    nodes = [prepared, trainer, EvaluateX(data=prepared.images, models=[trainer.model])]
    files.write_graph(nodes)
    prepared.run()  # which splits the images by scikit-learn
    names = [f"{type(node).__module__}.{type(node).__name__}" for node in nodes[1:]]
    return [f"run {name} --name {name.rpartition('.')[2]} --no-save-lockfile" for name in names]


def test_the_stages_import_nothing_that_they_do_not_use(commands: list[str]):
    """Each import of these takes as long as a part of torch's, or longer."""
    train, evaluate = commands

    trained = imported(RUN, train)
    assert {"torch", "zntrack", "jemtrack.stages.trainer"} <= trained
    assert sorted(trained & {*UNUSED}) == []
    evaluated = imported(RUN, evaluate)
    assert Path("nodes/EvaluateX/metrics").exists()
    # Its statistics.
    assert sorted(evaluated & {*UNUSED}) == ["scipy", "sklearn"]


def test_a_stage_that_begins_has_imported_nothing_that_it_uses_later():
    modules = {type(node).__module__ for node in workflow.nodes()}

    found = imported(BEGINS, *modules)

    assert modules <= found
    assert sorted(found & {*UNUSED}) == []


def test_dvc_reads_its_files_by_libyaml():
    """The pure parser takes a second for a lock file that names each stage's code."""
    assert YAML(typ="safe").Parser.__name__ == "CParser"


def test_the_help_imports_nothing_but_the_command():
    found = imported(HELP) - imported(NOTHING)

    assert found - sys.stdlib_module_names == {"jemtrack"}
