"""The graph that the project ships with, file by file; `pytest --update-golden` renews it.

DVC would take a file called dvc.yaml for a pipeline of the project's own, so they are called
graph_dvc.yaml and so on.
"""

import shutil
from pathlib import Path

import pytest
import yaml

from jemtrack.workflows import four_trainers
from jemtrack.workflows.default import write_graph

PROJECT = Path(__file__).parents[2]
FILES = ["dvc.yaml", "params.yaml", "zntrack.json"]


@pytest.mark.parametrize("name", FILES)
def test_the_emitted_file_is_the_one_on_record(name, root, update_golden):
    golden = PROJECT / "tests" / "golden" / f"graph_{name}"

    write_graph()

    if update_golden:
        shutil.copy(name, golden)
    assert Path(name).read_text() == golden.read_text()


def test_the_project_s_own_files_are_what_its_code_says(root):
    """Hand edits are allowed: they stay, so that writing once more changes nothing."""
    before = {name: (PROJECT / name).read_text() for name in FILES}
    for name in FILES:
        shutil.copy(PROJECT / name, name)

    write_graph()

    for name in FILES:
        after = yaml.safe_load(Path(name).read_text())
        assert after == yaml.safe_load(before[name]), "type `jemtrack graph`"


def test_one_switch_makes_the_four_trainers_fit_a_gpu_and_keeps_what_was_changed(root):
    four_trainers.write_graph("mnist")
    path = Path("workflows", "mnist", "params.yaml")
    values = yaml.safe_load(path.read_text())
    values["MaxEntropyL1"]["params"]["n_epochs"] = 7
    path.write_text(yaml.safe_dump(values))

    four_trainers.write_graph("mnist", "gpu")

    values = yaml.safe_load(path.read_text())
    assert values["MaxEntropyL1"]["params"]["n_epochs"] == 7
    for trainer in ("XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2", "SampledJEM"):
        params = values[trainer]["params"]
        found = (params["depth"], params["width"], params["device"], params["precision"])
        assert found == (28, 10, "cuda", "bf16-mixed")
