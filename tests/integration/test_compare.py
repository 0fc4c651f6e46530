"""Revisions read and held side by side, in a project where things were committed and tried out."""

import json
import re
import sys

import pytest
from project import SMALL_TRAINERS, Project

from jemtrack.evaluation.models.model_outputs import load_outputs, save_outputs

READ = """
import json
from jemtrack.project.revisions import Revision

old, lr = Revision("HEAD"), Revision("lr")
model = lr.model("MaxEntropyL2")
print(json.dumps({
    "now": Revision().metrics(),
    "head": old.metrics(),
    "lr": lr.metrics(),
    "rate": [each.params()["MaxEntropyL2"]["params"]["lr"] for each in (old, lr)],
    "figures": len(lr.table("EvaluateX/tables/figures.csv")),
    "classes": model.class_head.out_features,
    "training": model.training,
    "summary": lr.read("nodes/EvaluateX/facts.json")[:1].decode(),
}))
"""


def test_any_revision_is_read_without_checking_it_out_and_held_beside_others(reproduced: Project):
    """One trainer learns faster in an experiment, which is not checked out."""
    command = ["dvc", "exp", "run", "--temp", "--name", "lr", "-S", "MaxEntropyL2.params.lr=0.02"]
    reproduced.run(*command)
    before = reproduced.run("git", "status", "--short")

    read = json.loads(reproduced.run(sys.executable, "-c", READ).splitlines()[-1])

    assert read["now"] == read["head"] != read["lr"]
    assert read["head"]["MaxEntropyL1"] == read["lr"]["MaxEntropyL1"]
    assert read["rate"] == [0.001, 0.02]
    assert read["figures"] == 2 * 4
    assert (read["classes"], read["training"]) == (10, False)
    assert read["summary"] == "{"
    assert reproduced.run("git", "status", "--short") == before
    assert reproduced.read("nodes/EvaluateX/metrics.json") == read["now"]

    said = reproduced.run("jemtrack", "compare", "HEAD", "lr")

    rows = {(row["trainer"], row["measure"]): row for row in _rows(said)}
    assert rows.keys() == {
        (t, m) for t in SMALL_TRAINERS for m in ("accuracy", "nll", "brier", "ece")
    }
    for (trainer, measure), row in rows.items():
        assert (float(row["difference"]) == 0) == (trainer != "MaxEntropyL2")
        for revision, shown in (("head", row["before"]), ("lr", row["value"])):
            assert float(shown) == pytest.approx(read[revision][trainer][measure], abs=1e-4)
    assert "p-values corrected for 8 tests" in said
    # Alone, a revision is held against the workspace.
    assert "workspace" in reproduced.run("jemtrack", "compare", "lr")


def _rows(said: str) -> list[dict[str, str]]:
    found, trainer = [], ""
    for line in said.splitlines():
        cells = [cell.strip() for cell in re.split("[┃│]", line)[1:-1]]
        if len(cells) != 7:
            continue
        if cells[2] == "revision":
            trainer = cells[0]
        else:
            names = ("measure", "before", "revision", "value", "difference", "interval", "p")
            found.append({"trainer": trainer, **dict(zip(names, cells, strict=True))})
    return found


def test_what_cannot_be_compared_is_named(reproduced: Project):
    said = reproduced.run("jemtrack", "compare", "nowhere", fails=True)
    assert "'nowhere' is not a commit, branch, tag or experiment" in said

    path = reproduced.path / "nodes" / "EvaluateX" / "outputs.safetensors"
    outputs = load_outputs(path.read_bytes(), "the workspace")
    path.unlink()
    said = reproduced.run("jemtrack", "compare", "HEAD", fails=True)
    assert "outputs.safetensors of the workspace" in said

    save_outputs(outputs.outputs, outputs.labels_N.flip(0), path)
    said = reproduced.run("jemtrack", "compare", "HEAD", fails=True)
    assert "workspace was evaluated on other images than HEAD" in said
