"""Pipelines: loops of one's own, told to trackers and callbacks as the engine's own is."""

import sys
from contextlib import nullcontext

import pytest
from loops import (
    N_EPOCHS,
    WAYS,
    Automatic,
    InBlocks,
    Record,
    Stub,
    at,
    fail,
    interrupt,
    stop,
    terminate,
    untimed,
)

from jemtrack.events.events import (
    EpochEnd,
    EpochStart,
    PhaseEnd,
    PhaseStart,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.record.jsonl import JsonLines, read_record
from jemtrack.trackers.console import Lines

# What happens in a body, what at the end of an epoch, and the status that it gives.
OUTCOMES = {
    "success": (None, None, Status.SUCCESS, None),
    "stopped": (None, stop, Status.STOPPED, None),
    "failed body": (fail, None, Status.FAILED, ValueError),
    "failed callback": (None, fail, Status.FAILED, ValueError),
    "Ctrl-C in the body": (interrupt, None, Status.ABORTED, KeyboardInterrupt),
    "SIGTERM in the body": (terminate, None, Status.ABORTED, KeyboardInterrupt),
    "Ctrl-C in a callback": (None, interrupt, Status.ABORTED, KeyboardInterrupt),
    "exit": (lambda _: sys.exit(3), None, Status.ABORTED, SystemExit),
}


def told(way, outcome, tmp_path):
    """Run a loop to its end; give the events that a tracker was told, times and names removed."""
    in_body, in_callback, status, error = OUTCOMES[outcome]
    loop = way(at(1, in_body) if in_body else lambda epoch: None)
    record = Record()
    folder = tmp_path / way.__name__
    loop.trackers = [record, JsonLines(folder=str(folder)), Lines(print_every=1)]
    loop.callbacks = [Stub(2, in_callback)] if in_callback else []
    with pytest.raises(error) if error else nullcontext():
        assert loop.run() == "done"

    assert record.closed == 1
    assert loop.status == status
    assert loop.epoch_metrics == {}
    return [untimed(event) for event in record.events], read_record(folder)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_way_out_ends_all_that_began_once(way, outcome, tmp_path):
    events, _ = told(way, outcome, tmp_path)

    kinds = [type(event) for event in events]
    assert (kinds[0], kinds[-1]) == (RunStart, RunEnd)
    for start, end in ((RunStart, RunEnd), (PhaseStart, PhaseEnd), (EpochStart, EpochEnd)):
        assert kinds.count(start) == kinds.count(end)
    assert kinds.count(RunStart) == kinds.count(PhaseStart) == 1
    assert kinds.count(EpochStart) == (N_EPOCHS if outcome == "success" else 2)
    assert events[-1].status == OUTCOMES[outcome][2]


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_epochs_by_hand_leave_the_records_of_automatic_ones(way, outcome, tmp_path):
    assert told(way, outcome, tmp_path) == told(Automatic, outcome, tmp_path)


def test_the_records_hold_what_was_set(tmp_path):
    events, record = told(Automatic, "success", tmp_path)

    assert record.epoch == {
        epoch: {"train_loss": 2 / epoch, "valid_loss": 2.0 + epoch} for epoch in (1, 2, 3)
    }
    assert record.batch == {
        step: {"loss": 3.0 if step % 2 == 0 else 2 / (step + 1)} for step in range(1, 7)
    }
    assert record.run == {"test_loss": 0.5}
    assert events[-1] == RunEnd(Status.SUCCESS, {"test_loss": 0.5})


def test_a_broken_epoch_has_a_status_and_no_metrics(tmp_path):
    events, record = told(InBlocks, "failed body", tmp_path)

    broken = [event for event in events if isinstance(event, EpochEnd)][-1]
    assert (broken.status, broken.metrics, broken.epoch) == (Status.FAILED, {}, 1)
    assert [*record.epoch] == [1]
