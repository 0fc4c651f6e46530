"""The graph of the four trainers, in a folder of its own."""

import pandas as pd
from project import MEASURING, SMALL, SMALL_EVALUATION, Project

TRAINERS = ["XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2", "SampledJEM"]


def test_the_four_trainers_run_beside_the_main_graph(project: Project):
    project.run("jemtrack", "graph", "--workflow", "mnist")
    four = Project(project.path / "workflows" / "mnist")
    four.set("PrepareData.params.dataset", "digits")
    four.set("PrepareData.params.n_valid", 180)
    for trainer in TRAINERS:
        for name, value in SMALL.items():
            four.set(f"{trainer}.params.{name}", value)
    for name, value in {**SMALL_EVALUATION, "PrepareOutliers.params.partners": ["letters"]}.items():
        four.set(name, value)
    project.run("jemtrack", "graph", "--workflow", "mnist")
    four.run("jemtrack", "check")

    ran = four.repro()

    assert ran[0] == "PrepareData"
    assert sorted(ran[1:5]) == sorted(TRAINERS)
    assert sorted(ran[5:-1]) == sorted(["PrepareOutliers", *MEASURING])
    assert ran[-1] == "Report"
    measured = pd.read_csv(four.path / "nodes/EvaluateX/tables/measures.csv")
    assert [*measured["model"]] == TRAINERS
    shown = four.run("jemtrack", "show")
    assert all(trainer in shown for trainer in TRAINERS)
    assert "train_sample_log_density" in pd.read_csv(four.path / "nodes/SampledJEM/history.csv")
    # All that is not to be kept is out of git's sight; the trainings left nothing behind.
    status = project.run("git", "status", "--short", "--untracked-files=all", "workflows")
    files = sorted(
        line.split()[-1].removeprefix("workflows/mnist/") for line in status.splitlines()
    )
    assert {file for file in files if not file.startswith("nodes/")} == {
        "dvc.lock", "dvc.yaml", "params.yaml", "versions.yaml", "zntrack.json",
    }  # fmt: skip
    outs = {file for file in files if file.startswith("nodes/")}
    assert outs == {
        *(f"nodes/{trainer}/metrics.json" for trainer in TRAINERS),
        *(f"nodes/EvaluateX/metrics/{trainer}.json" for trainer in TRAINERS),
        # Theirs are in DVC's cache, which these files tell git.
        *(f"nodes/{stage}/.gitignore" for stage in MEASURING if stage != "EvaluateX"),
    }
    assert not [*project.path.glob(".jemtrack/*-*")]
    assert not [*four.path.glob(".jemtrack/*-*")]

    # The graphs have nothing to do with one another, and neither is stale.
    assert four.repro() == []
    assert project.repro("MaxEntropyL1") == ["PrepareData", "MaxEntropyL1"]
