"""Experiments that are queued."""

import re
import time
from collections.abc import Callable, Iterator

import pytest
from project import SMALL_TRAINERS, Project
from test_experiments import changed, experiments

MEASURES = "src/jemtrack/evaluation/measures/calibration_measures.py"
MINUTES = 10  # that a queue may take on a busy machine


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
    reproduced.edit(MEASURES, '"accuracy": float', 'NAME: 1.0, "accuracy": float')
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
    for trainer in SMALL_TRAINERS:
        assert first[trainer].pop("as_queued") == second[trainer].pop("as_queued") == 1.0
        assert "as_edited" not in first[trainer]
    assert not changed(metrics["HEAD"], first)
    assert changed(first, second) == {"MaxEntropyL1"}
