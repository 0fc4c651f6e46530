"""Experiments over params.yaml, as DVC documents them: in place and in a copy."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from project import ROOT, SMALL_TRAINERS, Project

CHANGED = "nodes/EvaluateX/metrics/MaxEntropyL1.json"


def experiments(project: Project) -> dict[str, Any]:
    """Give the metrics of the commit and of each experiment, by name and model."""
    told = project.run("dvc", "exp", "show", "--json")
    _, commit = json.loads(told[told.index("[{") :].splitlines()[0])
    rows = {"HEAD": commit["data"]}
    for experiment in commit["experiments"]:
        (rows[experiment["name"]],) = (revision["data"] for revision in experiment["revs"])
    return {
        name: {Path(path).stem: file["data"] for path, file in row["metrics"].items()}
        for name, row in rows.items()
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Name the trainers whose evaluation differs."""
    return {name for name in SMALL_TRAINERS if before[name] != after[name]}


def test_an_experiment_changes_what_hangs_on_its_parameter_alone(reproduced: Project):
    parameter = "MaxEntropyL1.params.lr=1e-05"
    said = reproduced.run("dvc", "exp", "run", "-S", parameter, "--name", "slow")
    ran = re.findall(r"^Running stage '(\w+)'", said, re.M)
    assert ran == ["MaxEntropyL1", "EvaluateX"]
    # DVC writes it so, which YAML 1.1 takes for text.
    assert "lr: 1e-05" in (reproduced.path / "params.yaml").read_text()
    reproduced.run("jemtrack", "check")

    before = reproduced.run("git", "stash", "create").strip()
    reproduced.run(
        "dvc", "exp", "run", "-S", "EvaluateX.operation.n_bins=700", "--name", "bins", "--temp"
    )
    after = reproduced.run("git", "stash", "create").strip()
    assert reproduced.run("git", "diff", before, after) == ""

    told = reproduced.run("dvc", "metrics", "diff", "--json").splitlines()[-1]
    moved = json.loads(told)
    trained = "nodes/MaxEntropyL1/metrics.json"
    assert {*moved} == {CHANGED, trained}
    assert {"nll", "ece"} <= moved[CHANGED].keys()

    listed = [line.split() for line in reproduced.run("jemtrack", "exps").splitlines()]
    nll = f"{moved[trained]['valid_nll']['new']:.4f}"
    (slow,) = (cells for cells in listed if cells[:1] == ["slow"])
    assert slow[1:3] == ["MaxEntropyL1.params.lr=1e-05", "MaxEntropyL1"]
    assert slow[4] == nll

    page = (ROOT / "docs" / "experiments.md").read_text().splitlines()
    shortened = next(line for line in page if line.startswith("dvc exp show --drop"))
    for command in ("dvc exp show --only-changed", shortened):
        shown = reproduced.run(*shlex.split(command), "--csv").splitlines()
        (header,) = (line.split(",") for line in shown if line.startswith("Experiment,"))
        assert len(header) < 60
        assert {"MaxEntropyL1.params.lr", f"{trained}:valid_nll"} <= {*header}

    metrics = experiments(reproduced)
    assert metrics.keys() == {"HEAD", "slow", "bins"}
    assert {"accuracy", "nll", "ece"} <= metrics["slow"]["MaxEntropyL1"].keys()
    assert changed(metrics["HEAD"], metrics["slow"]) == {"MaxEntropyL1"}
    # It starts from the workspace, where the first one left its parameter.
    assert metrics["slow"]["MaxEntropyL1"]["nll"] == metrics["bins"]["MaxEntropyL1"]["nll"]
    assert "MaxEntropyL2" in changed(metrics["slow"], metrics["bins"])
