"""The graph that the project ships with, file by file; `pytest --update-golden` renews it.

DVC would take a file called dvc.yaml for a pipeline of the project's own, so they are called
graph_dvc.yaml and so on.
"""

import shutil
from pathlib import Path

import pytest
import yaml

from jemtrack.workflow import write_graph

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
