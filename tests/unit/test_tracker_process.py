"""Trackers have processes of their own, and nothing that they do reaches the training."""

import logging
import pickle
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hostile_trackers import Ending, HangingInClose, Hostile, Lines, WithState
from test_engine_resume import N_STEPS, assert_same, make_run
from tracked_run import (
    KEPT,
    N_EPOCHS,
    PHASES,
    assert_same_record,
    diverged_run,
    end,
    expected,
    position,
    start,
    steps,
    tell,
    whole_run,
)
from tracker_readers import sql_record

from jemtrack import errors
from jemtrack.errors import InputError, Interrupted, TrainingDivergedError
from jemtrack.events import tracker_process
from jemtrack.events.dispatcher import EventDispatcher
from jemtrack.events.events import BatchEnd, BatchStart, EpochEnd, Measured, RunEnd, Status
from jemtrack.events.handlers import Callback, Recorder, Tracker
from jemtrack.events.tracker_process import TrackerProcess
from jemtrack.record.history import HistoryCsv
from jemtrack.record.jsonl import JsonLines, read_lines
from jemtrack.record.paths import RunPaths, build_tracker
from jemtrack.shared.global_state import global_state_kept
from jemtrack.shared.random_streams import random_state
from jemtrack.shared.serialization import from_bytes, to_bytes
from jemtrack.trackers.sql import SqlDatabase
from jemtrack.train.run import Run

HINT = "; when the training has ended, `jemtrack replay` sends it the whole record"


@pytest.fixture
def warnings(caplog) -> Iterator[list[str]]:
    """The warnings of the test so far."""

    class Found(list):
        def __iter__(self):
            return iter(r.message for r in caplog.records if r.levelno >= logging.WARNING)

    with caplog.at_level(logging.INFO, logger="jemtrack"):
        yield Found()


def trained(*trackers: Tracker) -> Run:
    run = make_run(None)
    run.trackers = [*run.trackers, *trackers]
    run.train()
    return run


def test_a_tracker_that_upsets_everything_changes_no_bit_of_the_training(
    tmp_path, monkeypatch, warnings
):
    monkeypatch.setattr("jemtrack.events.dispatcher.CLOSE_SECONDS", 120.0)  # on a busy machine
    untracked = trained()
    path = tmp_path / "events.txt"
    entry = {"type": "hostile_trackers.Hostile"}
    run = make_run(None)
    threads = torch.get_num_threads()

    run.trackers = [*run.trackers, build_tracker(entry, RunPaths(tmp_path, tmp_path))]
    run.train()

    assert_same(run, untracked)
    # A stage goes on after its training, by what is left of the global state.
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    assert [*warnings] == []
    assert path.read_text().split() == [type(each).__name__ for each in run.trackers[0].events]


def test_what_builds_a_tracker_changes_nothing_for_the_training():
    before = to_bytes(random_state())

    with global_state_kept():
        Hostile(path="x")

    assert to_bytes(random_state()) == before
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def _hasty(monkeypatch) -> None:
    monkeypatch.setattr(tracker_process, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("jemtrack.events.dispatcher.CLOSE_SECONDS", 4.0)


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "ConnectionError: two lines"),
        ("exits", "SystemExit: 3"),
        ("vanishes", "its process ended"),
        ("crashes", "its process ended"),
    ],
)
def test_a_tracker_that_fails_is_left_alone_with_one_warning(how, reason, warnings):
    assert_same(trained(Ending(how=how)), trained())

    (warning,) = warnings
    assert warning == f"Ending gets nothing of the run after step 0: {reason}{HINT}"


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize(
    "tracker", [Ending(how="hangs"), Ending(how="holds_python"), HangingInClose()]
)
def test_a_call_that_never_returns_keeps_neither_the_training_nor_the_process(tracker, warnings):
    untracked, began = trained(), time.monotonic()

    run = trained(tracker)

    assert 4 <= time.monotonic() - began < 12
    assert_same(run, untracked)
    (warning,) = warnings
    assert "it did not finish in time" in warning


@pytest.mark.usefixtures("_hasty")
def test_a_call_that_takes_too_long_is_given_up_while_the_training_runs(monkeypatch, warnings):
    monkeypatch.setattr(tracker_process, "_CALL_SECONDS", 5.0)
    process = TrackerProcess(Ending(how="hangs"))

    tell(process, [start(), *steps(1, 2)])
    process._thread.join(60)

    assert [*warnings] == [
        f"Ending gets nothing of the run after step 0: a call took longer than 5 s{HINT}"
    ]
    assert process._process.poll() is not None


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize(("kind", "reason"), [("set", "cannot be saved"), ("error", "no state")])
def test_a_state_that_fails_never_reaches_a_checkpoint(tmp_path, kind, reason, warnings):
    run = make_run(tmp_path)
    run.trackers = [*run.trackers, WithState(kind=kind)]
    run.train()

    assert_same(run, trained())
    (warning,) = warnings
    assert warning.startswith("WithState gets nothing of the run after step 0")
    assert reason in warning


def finished(process: TrackerProcess, seconds: float = 60.0) -> None:
    process.finish()
    process.wait(time.monotonic() + seconds)


def told(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_full_queue_drops_batches_counts_them_and_never_waits(tmp_path, monkeypatch, warnings):
    monkeypatch.setattr(tracker_process, "_QUEUE_SIZE", 10)
    process = TrackerProcess(Lines(path=str(tmp_path / "points"), seconds=0.01))
    of_batches = [isinstance(each, BatchStart | BatchEnd | Measured) for each in whole_run()]
    n_dropped = sum(of_batches[10:])

    began = time.monotonic()
    tell(process, whole_run())
    assert time.monotonic() - began < 0.5
    finished(process)

    assert [*warnings] == [f"Lines lacks {n_dropped} events of the run{HINT}"]
    epochs = [line for line in told(tmp_path / "points") if line.startswith("epoch")]
    assert epochs == [f"epoch {n}" for n in range(1, len(PHASES) * N_EPOCHS + 1)]
    assert told(tmp_path / "points")[-1] == "end success"


def database(folder: Path) -> SqlDatabase:
    return SqlDatabase(url=f"sqlite:///{folder}/runs.db")


@pytest.mark.parametrize("handled", [0, 1, 4, KEPT])
def test_a_session_that_resumes_sends_what_a_kill_left_in_the_queue(tmp_path, monkeypatch, handled):
    """The checkpoint is made after `KEPT` steps, of which the tracker has handled some."""
    monkeypatch.setattr(tracker_process, "_PAUSE_SECONDS", 0.2 if handled else 3600.0)
    killed = TrackerProcess(database(tmp_path))
    tell(killed, [start(), *steps(1, handled)])
    if handled:
        handle_all(killed, monkeypatch)
    tell(killed, steps(handled + 1, KEPT))
    state = from_bytes(to_bytes(killed.state_dict()))
    assert (state["tracker"] is None) == (handled == 0)
    tell(killed, steps(KEPT + 1, 7))
    killed.wait(until=0.0)  # it is killed

    resumed = TrackerProcess(database(tmp_path))
    resumed.load_state_dict(state)
    tell(resumed, [start(KEPT, "session-2"), *steps(KEPT + 1, 12), end()])
    finished(resumed)

    assert_same_record(sql_record(tmp_path / "runs.db", "run-1"), expected(whole_run()))


def handle_all(process: TrackerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until the tracker has handled what is in the queue; let all else wait there."""
    until = time.monotonic() + 60
    while process.state_dict()["queue"]:
        assert time.monotonic() < until
        time.sleep(0.01)
    monkeypatch.setattr(tracker_process, "_PAUSE_SECONDS", 3600.0)
    time.sleep(0.5)  # the last short pause


def test_events_reach_a_tracker_in_order_with_what_a_divergence_voids(tmp_path):
    process = TrackerProcess(database(tmp_path))
    tell(process, diverged_run())
    finished(process)

    assert_same_record(sql_record(tmp_path / "runs.db", "run-1"), expected(diverged_run()))


class Keep(Recorder):
    def __init__(self) -> None:
        self.events = []

    def __call__(self, event) -> None:
        self.events.append(event)


def test_events_carry_plain_values_that_nothing_changes_later():
    keep = Keep()
    dispatcher = EventDispatcher([keep], [], None)
    weight, metrics = torch.ones(1), {}
    metrics["loss"] = weight[0]

    dispatcher.dispatch(Measured(metrics, 1))
    weight += 1
    metrics["loss"] = 7.0

    (event,) = keep.events
    assert event.metrics == {"loss": 1.0}
    assert type(event.metrics["loss"]) is float


def test_a_run_without_a_record_cannot_be_replayed(warnings):
    dispatcher = EventDispatcher([Ending(how="raises")], [], None)
    for event in [start(), *steps(1, 1)]:
        dispatcher.dispatch(event)
    dispatcher.end(end())

    assert [*warnings] == [
        "Ending gets nothing of the run after step 0: ConnectionError: two lines"
    ]


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED])
def test_trackers_get_the_history_of_a_run_that_succeeded(tmp_path, status):
    history = HistoryCsv(path=str(tmp_path / "history.csv"))
    dispatcher = EventDispatcher([history, database(tmp_path)], [], None)
    for event in [start(), *(each for each in steps(1, 3) if not isinstance(each, EpochEnd))]:
        dispatcher.dispatch(event)
    dispatcher.dispatch(EpochEnd(position(3), {"train_loss": 1.0}, 1, 3))
    dispatcher.end(end(status))

    connection = sqlite3.connect(tmp_path / "runs.db")
    found = connection.execute("SELECT path, kind FROM artifact").fetchall()
    connection.close()
    assert found == ([(history.path, "results")] if status == Status.SUCCESS else [])


class FailsAt(Callback):
    def __call__(self, event, state) -> None:
        if isinstance(event, EpochEnd):
            raise ZeroDivisionError


@pytest.mark.parametrize("callbacks", [[], [FailsAt()]])
def test_a_record_that_cannot_be_written_is_an_error(tmp_path, callbacks, warnings):
    """It ends the training; what ended it already is not hidden by it."""
    (tmp_path / "file").touch()
    keep = Keep()
    broken = HistoryCsv(path=str(tmp_path / "file" / "history.csv"))
    run = make_run(None, callbacks=callbacks)
    run.trackers = [keep, JsonLines(folder=str(tmp_path / "record")), broken]

    with pytest.raises(FileExistsError, match="file"):
        run.train()

    assert isinstance(keep.events[-1], RunEnd)
    assert keep.events[-1].status == Status.FAILED
    assert [*read_lines(tmp_path / "record" / "run.jsonl")][-1]["event"] == "run_end"
    assert [*warnings] == []


def test_a_tracker_of_the_program_itself_is_refused_with_what_to_do(monkeypatch):
    own = type("Own", (Tracker,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Own", own, raising=False)

    with pytest.raises(InputError, match="the tracker Own is defined in the program that runs"):
        TrackerProcess(own())


def test_a_live_tracker_is_called_in_the_process_of_the_training():
    class Live(Tracker):
        live = True
        n_events = 0

        def __call__(self, event) -> None:
            self.n_events += 1

    live = Live()
    run = trained(live)

    assert live.n_events == len(run.trackers[0].events) > N_STEPS


@pytest.mark.parametrize(
    "error",
    [
        Interrupted(2),
        Interrupted(15),
        TrainingDivergedError("why", {"loss": 1.0}),
        errors.ParameterError("lr must be > 0"),
        InputError("no"),
    ],
)
def test_errors_survive_the_way_between_processes(error):
    found = pickle.loads(pickle.dumps(error))

    assert type(found) is type(error)
    assert (str(found), vars(found)) == (str(error), vars(error))
