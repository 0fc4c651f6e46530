"""However a training ends: what is said of it is right, and the next one goes on from it."""

import json
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from test_engine_resume import N_STEPS, BreakOff, Momentum, assert_same, make_run, power_cut

from jemtrack.errors import Interrupted, exit_status
from jemtrack.events.events import Event
from jemtrack.events.handlers import Tracker
from jemtrack.record.history import HistoryCsv
from jemtrack.record.jsonl import JsonLines
from jemtrack.train.checkpoint import newest_first
from jemtrack.train.run import Run

AT = 7  # the optimization step at which it ends; every third one is saved


class Fragile(Momentum):
    """An objective that fails in the batch numbered `fails_at`."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self.left = fails_at

    def __call__(self, models, batch):
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError("of the user's own")
        return super().__call__(models, batch)


class Unwell(Tracker):
    def __call__(self, event: Event) -> None:
        raise ConnectionError("no server")

    def close(self) -> None:
        raise ConnectionError("no server")


@dataclass
class Folder:
    """Where a run's checkpoints, record and history are."""

    path: Path

    def run(self, at: int = -1, act: Callable[[], None] = power_cut, fails_at: int = 0) -> Run:
        run = make_run(self.path / "scratch", callbacks=[BreakOff(at, act)])
        objective = Fragile(fails_at)
        run.phases = [replace(phase, objective=objective) for phase in run.phases]
        record = JsonLines(folder=str(self.path / "record"))
        run.trackers = [Unwell(), record, HistoryCsv(path=str(self.path / "history.csv"))]
        return run

    def lines(self, name: str) -> list[dict]:
        path = self.path / "record" / name
        return [json.loads(line) for line in path.open()] if path.exists() else []

    @property
    def steps(self) -> list[int]:
        files = ("warm_up.jsonl", "rest.jsonl")
        return [line["global_step"] for name in files for line in self.lines(name)]

    @property
    def ends(self) -> list[tuple[str, str]]:
        lines = self.lines("run.jsonl")
        return [(line["event"], line["status"]) for line in lines if line["event"].endswith("_end")]

    @property
    def saved(self) -> list[int]:
        """The steps that were saved, the newest first; nothing torn may lie beside them."""
        files = newest_first(self.path / "scratch")
        assert {file.path for file in files} == {*(self.path / "scratch").iterdir()}
        return [file.step for file in files]


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "broken")


@pytest.fixture
def goes_on(tmp_path, folder) -> Callable[[], None]:
    """Hold that the next start ends as the run that was not broken off."""

    def hold() -> None:
        unbroken = Folder(tmp_path / "whole")
        whole, run = unbroken.run(), folder.run()
        whole.train()
        run.train()
        assert_same(run, whole)
        history = (unbroken.path / "history.csv").read_bytes()
        assert (folder.path / "history.csv").read_bytes() == history
        assert folder.steps == unbroken.steps == [*range(1, N_STEPS + 1)]
        assert folder.ends[-1] == ("run_end", "success")

    return hold


def test_an_exception_in_the_objective(folder, goes_on):
    with pytest.raises(ZeroDivisionError, match="of the user's own"):
        folder.run(fails_at=AT).train()

    assert folder.ends == [("phase_end", "failed"), ("run_end", "failed")]
    assert folder.lines("run.jsonl")[-2]["reason"] == "ZeroDivisionError: of the user's own"
    assert folder.steps == [*range(1, AT)]
    assert folder.saved == [6, 3]
    goes_on()


def test_an_exception_in_a_callback(folder, goes_on):
    with pytest.raises(MemoryError, match="pulled the plug"):
        folder.run(AT, power_cut).train()

    assert folder.ends == [("phase_end", "failed"), ("run_end", "failed")]
    assert folder.steps == [*range(1, AT + 1)]
    assert folder.saved == [6, 3]
    goes_on()


def test_an_exception_in_a_tracker_is_a_warning(folder, caplog):
    with caplog.at_level(logging.WARNING, logger="jemtrack"):
        folder.run().train()

    assert [record.message for record in caplog.records] == [
        "Unwell gets nothing of the run after step 0: ConnectionError: no server; when the "
        "training has ended, `jemtrack replay` sends it the whole record"
    ]
    assert folder.ends[-1] == ("run_end", "success")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal(folder, goes_on, number, status):
    handler = signal.getsignal(number)

    with pytest.raises(Interrupted, match=f"ended by {number.name}") as raised:
        folder.run(AT, lambda: os.kill(os.getpid(), number)).train()

    assert signal.getsignal(number) == handler
    assert exit_status(raised.value) == status
    assert folder.ends == [("phase_end", "aborted"), ("run_end", "aborted")]
    assert folder.saved == [AT, 6]
    goes_on()


@pytest.fixture
def _ctrl_c_acts() -> Iterator[None]:
    """As for who sits before it: what a shell runs in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_acts")
def test_a_second_ctrl_c_ends_it_at_once(folder, goes_on):
    def twice() -> None:
        # Python acts on a signal between two of its steps, and takes two until then for one.
        first = signal.getsignal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        while signal.getsignal(signal.SIGINT) == first:
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt) as raised:
        folder.run(AT, twice).train()

    assert exit_status(raised.value) == 130
    assert folder.ends == [("phase_end", "aborted"), ("run_end", "aborted")]
    assert folder.saved == [6, 3]
    goes_on()


@pytest.fixture
def limit_files() -> Iterator[Callable[..., None]]:
    """Give what lets no file grow beyond a number of bytes, and without one lets them again."""
    usual, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(n_bytes: int = usual) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, most))

    yield limit
    limit()


def test_a_full_disk(folder, goes_on, limit_files):
    """Half of the second checkpoint is written; the record's small files are whole."""

    def fill() -> None:
        (checkpoint,) = newest_first(folder.path / "scratch")
        limit_files(checkpoint.path.stat().st_size // 2)

    with pytest.raises(OSError, match=r"File too large: .*000002-step6-.*\.checkpoint"):
        folder.run(5, fill).train()
    limit_files()

    assert folder.ends == [("phase_end", "failed"), ("run_end", "failed")]
    assert folder.lines("run.jsonl")[-2]["reason"].startswith("OSError: [Errno 27]")
    assert folder.saved == [3]
    goes_on()
