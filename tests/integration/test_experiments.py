"""Experiments over params.yaml, as DVC documents them: in place, in a copy, and queued."""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from project import MEASURING, TRAINERS, Project

MEASURES = "src/jemtrack/evaluation/calibration_measures.py"
MINUTES = 10  # that a queue may take on a busy machine


def experiments(project: Project) -> dict[str, Any]:
    """Give the metrics of the commit and of each experiment, by name and file."""
    told = project.run("dvc", "exp", "show", "--json")
    _, commit = json.loads(told[told.index("[{") :].splitlines()[0])
    rows = {"HEAD": commit["data"]}
    for experiment in commit["experiments"]:
        (rows[experiment["name"]],) = (revision["data"] for revision in experiment["revs"])
    return {
        name: {path.split("/")[1]: file["data"] for path, file in row["metrics"].items()}
        for name, row in rows.items()
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Name the stages whose metrics differ, and the trainers whose evaluation does."""
    found = {stage for stage in TRAINERS if before[stage] != after[stage]}
    evaluated = before["EvaluateX"], after["EvaluateX"]
    return found | {f"of {name}" for name in TRAINERS if evaluated[0][name] != evaluated[1][name]}


@pytest.fixture
def finish_queue(reproduced: Project) -> Iterator[Callable[[], str]]:
    """Run what is queued, with a worker that is gone when the test is over."""

    def wait_for_no_worker(looks: int = 1) -> str:
        """See none so many times in a row, or once with nothing queued: one takes time to begin."""
        end, seen, status = time.monotonic() + 60 * MINUTES, 0, ""
        while time.monotonic() < end:
            status = reproduced.run("dvc", "queue", "status")
            idle = "Worker status: 0 active, 0 idle" in status and "Running" not in status
            seen = seen + 1 if idle else 0
            if seen == looks or (idle and "Queued" not in status):
                return status
            time.sleep(2)
        raise TimeoutError(status)

    def finish() -> str:
        status = "Queued"
        # On a busy machine DVC's worker takes a late answer for an empty queue, and ends.
        while "Queued" in status:
            reproduced.run("dvc", "queue", "start", "--jobs", "1")
            status = wait_for_no_worker(looks=5)
        return status

    yield finish
    reproduced.run("dvc", "queue", "stop", "--kill")
    wait_for_no_worker()


def test_an_experiment_changes_what_hangs_on_its_parameter_alone(reproduced: Project):
    parameter = "XEntropyAugmented.params.lr=1e-05"
    said = reproduced.run("dvc", "exp", "run", "-S", parameter, "--name", "slow")
    ran = re.findall(r"^Running stage '(\w+)'", said, re.M)
    assert sorted(ran) == sorted(["XEntropyAugmented", *MEASURING, "Report"])

    before = reproduced.run("git", "stash", "create").strip()
    reproduced.run(
        "dvc", "exp", "run", "-S", "EvaluateX.operation.n_bins=7", "--name", "bins", "--temp"
    )
    after = reproduced.run("git", "stash", "create").strip()
    assert reproduced.run("git", "diff", before, after) == ""

    told = reproduced.run("dvc", "metrics", "diff", "--json").splitlines()[-1]
    moved = json.loads(told)
    moved_stages = ["XEntropyAugmented", *MEASURING]
    assert sorted(moved) == sorted(f"nodes/{stage}/metrics.json" for stage in moved_stages)
    evaluated = moved["nodes/EvaluateX/metrics.json"]
    assert {"XEntropyAugmented.nll", "XEntropyAugmented.ece"} <= evaluated.keys()
    assert {name.partition(".")[0] for name in evaluated} == {"XEntropyAugmented"}

    metrics = experiments(reproduced)
    assert metrics.keys() == {"HEAD", "slow", "bins"}
    assert {"accuracy", "nll", "ece"} <= metrics["slow"]["EvaluateX"]["XEntropyAugmented"].keys()
    assert changed(metrics["HEAD"], metrics["slow"]) == {
        "XEntropyAugmented",
        "of XEntropyAugmented",
    }
    # It starts from the workspace, where the first one left its parameter.
    assert "XEntropyAugmented" not in changed(metrics["slow"], metrics["bins"])
    assert "of MaxEntropyL1" in changed(metrics["slow"], metrics["bins"])


def test_queued_experiments_run_the_code_as_it_was_queued(
    reproduced: Project, finish_queue: Callable[[], str]
):
    """Edits travel with them as they stand, and new files if git knows of them."""
    new = reproduced.path / "src" / "jemtrack" / "evaluation" / "as_queued.py"
    new.write_text('NAME = "as_queued"\n')
    reproduced.run("git", "add", str(new))
    reproduced.edit(
        MEASURES,
        "from jemtrack.evaluation.measures.calibration import",
        "from jemtrack.evaluation.as_queued import NAME\n"
        "from jemtrack.evaluation.measures.calibration import",
    )
    reproduced.edit(MEASURES, '"accuracy": accuracy', 'NAME: 1.0, "accuracy": accuracy')
    usual = reproduced.read("params.yaml")["MaxEntropyL1"]["params"]["lr"]
    grid = f"MaxEntropyL1.params.lr={usual},0.03"
    reproduced.run("dvc", "exp", "run", "--queue", "--name", "grid", "-S", grid)
    new.write_text('raise RuntimeError("the code of today")\n')
    reproduced.edit(MEASURES, "NAME: 1.0", '"as_edited": 1.0')

    status = finish_queue()

    ended = re.findall(r"^\w{7} +(\S+) .* (\w+) *$", status, re.M)
    assert dict(ended) == {"grid-1": "Success", "grid-2": "Success"}
    metrics = experiments(reproduced)
    first, second = metrics["grid-1"], metrics["grid-2"]
    for trainer in TRAINERS:
        assert first["EvaluateX"][trainer]["as_queued"] == 1.0
        assert "as_edited" not in first["EvaluateX"][trainer]
    assert not {*TRAINERS} & changed(metrics["HEAD"], first)
    assert changed(first, second) == {"MaxEntropyL1", "of MaxEntropyL1"}
