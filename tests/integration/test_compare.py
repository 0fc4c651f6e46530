"""Revisions read and held side by side, in a project where things were committed and tried out."""

import io
import json
import sys

import pandas as pd
import pytest
from project import SMALL_TRAINERS, Project

from jemtrack.evaluation.models.model_outputs import load_outputs, save_outputs

READ = """
import json
from jemtrack.commands.compare import changes
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
    "changes": changes("HEAD", "lr").to_csv(),
    "workspace": [*changes("lr")["revision"].unique()],
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
    shown = reproduced.read("nodes/EvaluateX/metrics/MaxEntropyL2.json")
    assert shown == pytest.approx({name: read["now"]["MaxEntropyL2"][name] for name in shown})

    rows = pd.read_csv(io.StringIO(read["changes"])).set_index(["trainer", "measure"])
    assert {*rows.index} == {
        (t, m) for t in SMALL_TRAINERS for m in ("accuracy", "nll", "brier", "ece")
    }
    for (trainer, measure), row in rows.iterrows():
        assert row["baseline"] == pytest.approx(read["head"][trainer][measure])
        assert row["value"] == pytest.approx(read["lr"][trainer][measure])
        assert (row["test"] == "unchanged") == (trainer != "MaxEntropyL2")
    same = rows.drop(index="MaxEntropyL2")
    assert (same["difference"] == 0).all()
    assert same[["low", "high", "p_value", "p_corrected"]].isna().all(axis=None)
    # What did not change is no test: the least p-value is corrected for four.
    tested = rows.loc["MaxEntropyL2"]
    assert min(tested["p_corrected"]) == pytest.approx(min(4 * min(tested["p_value"]), 1))
    # Alone, a revision is compared with the workspace.
    assert read["workspace"] == ["workspace"]

    said = reproduced.run("jemtrack", "compare", "HEAD", "lr")

    assert max(map(len, said.splitlines())) <= 80
    assert "MaxEntropyL2: HEAD → lr" in said
    assert f"{rows.loc[('MaxEntropyL2', 'nll'), 'value']:.4f}" in said
    others = ", ".join(sorted({*SMALL_TRAINERS} - {"MaxEntropyL2"}))
    assert f"{others}: unchanged between HEAD and lr" in said
    assert "corrected for 4 tests" in said


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
