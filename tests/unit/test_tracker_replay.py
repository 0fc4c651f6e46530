"""What a tracker shows can be made again from the record."""

import json
import logging
import math
import sqlite3
from pathlib import Path

import pytest
from tracked_run import (
    KEPT,
    PARAMETERS,
    assert_same,
    assert_same_record,
    broken_off,
    diverged_run,
    end,
    expected,
    start,
    steps,
    tell,
    tell_to_end,
    whole_run,
)
from tracker_readers import event_files, tensorboard_points

from jemtrack.commands.main import main
from jemtrack.errors import InputError
from jemtrack.events.events import (
    ArtifactSaved,
    BatchEnd,
    Diverged,
    EpochEnd,
    Measured,
    PhaseEnd,
    PhaseStart,
    Position,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.record.jsonl import (
    JsonLines,
    encode,
    event_from_line,
    event_to_line,
    read_record,
)
from jemtrack.shared.plain import plain
from jemtrack.trackers.console import Lines
from jemtrack.trackers.replay import recorded_events, replay
from jemtrack.trackers.sql import SqlDatabase
from jemtrack.trackers.tensorboard import TensorBoard


def record(folder: Path, events) -> Path:
    tell_to_end(JsonLines(folder=str(folder)), events)
    return folder


@pytest.mark.parametrize("events", [whole_run(), broken_off(4)], ids=["whole", "broken off"])
def test_tensorboard_made_again_is_tensorboard_as_it_was(tmp_path, events):
    live, again = tmp_path / "live", tmp_path / "again"
    tell_to_end(TensorBoard(folder=str(live)), events)

    replay(record(tmp_path / "record", events), [TensorBoard(folder=str(again))])

    assert_same(tensorboard_points(again / "run-1"), tensorboard_points(live / "run-1"))
    for tag in event_files(live / "run-1").Tags()["tensors"]:
        (found,), (wanted,) = (
            event_files(again / "run-1").Tensors(tag),
            event_files(live / "run-1").Tensors(tag),
        )
        assert found.tensor_proto == wanted.tensor_proto


def test_a_database_made_again_holds_what_the_live_one_holds(tmp_path):
    def rows(folder: Path) -> dict[str, list]:
        connection = sqlite3.connect(folder / "runs.db")
        statements = {
            "metric": "SELECT * FROM metric ORDER BY level, step, name",
            "parameter": "SELECT * FROM parameter ORDER BY name",
            "run": "SELECT id, name, status FROM run",
            "artifact": "SELECT run_id, path, kind FROM artifact",
        }
        found = {name: connection.execute(text).fetchall() for name, text in statements.items()}
        connection.close()
        return found

    events = [*whole_run()[:-1], ArtifactSaved(Path("w.safetensors"), "weights"), end()]
    for folder in ("live", "again"):
        (tmp_path / folder).mkdir()
    tell_to_end(SqlDatabase(url=f"sqlite:///{tmp_path}/live/runs.db"), events)

    again = SqlDatabase(url=f"sqlite:///{tmp_path}/again/runs.db")
    replay(record(tmp_path / "record", events), [again])

    assert rows(tmp_path / "again") == rows(tmp_path / "live")


def test_a_record_of_a_record_is_the_same(tmp_path):
    first = record(tmp_path / "first", diverged_run())

    replay(first, [JsonLines(folder=str(tmp_path / "second"))])

    assert_same_record(read_record(tmp_path / "second"), read_record(first))
    assert_same_record(read_record(tmp_path / "second"), expected(diverged_run()))


def test_events_come_in_the_order_and_with_the_places_that_they_had(tmp_path):
    told = (RunStart, PhaseStart, EpochEnd, PhaseEnd)
    events = [event for event in whole_run() if isinstance(event, told)]

    found = recorded_events(record(tmp_path, whole_run()))

    begun, *others = (event for event in found if isinstance(event, told))
    assert begun == RunStart("test/Trainer", plain(PARAMETERS), "run-1", "session-1")
    # NaN is not equal to itself.
    assert repr(others) == repr(events[1:])


def test_of_a_run_in_two_sessions_one_is_told(tmp_path):
    first = JsonLines(folder=str(tmp_path))
    tell(first, [start(), *steps(1, KEPT)])
    second = JsonLines(folder=str(tmp_path))
    second.load_state_dict(first.state_dict())
    tell_to_end(second, [start(KEPT, "session-2"), *steps(KEPT + 1, 12), end()])

    found = [*recorded_events(tmp_path)]

    assert sum(isinstance(event, RunStart) for event in found) == 1
    assert (found[0].step, found[0].session_id) == (0, "session-2")
    assert_same_record(expected(found), expected(whole_run()))


def test_the_console_can_be_told(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="jemtrack"):
        replay(record(tmp_path, whole_run()), [Lines(print_every=1)])

    assert "Phase joint (2/2) | Epoch 2/2 | Batch 3/3" in caplog.messages[-2]


def test_a_run_that_goes_on_has_no_end(tmp_path):
    tell(JsonLines(folder=str(tmp_path)), [start(), *steps(1, 2)])

    *_, last = recorded_events(tmp_path)

    assert last.step == 2


@pytest.mark.parametrize(
    "event",
    [
        RunStart("r", {"lr": 0.1}, "run-1", "session-1", Position(1, 2, 3), 4, 5),
        PhaseStart(Position(1, 2, 3), "joint", 2, 3, 4),
        PhaseEnd(Position(1, 2, 3), "joint", "2 epochs are done", Status.STOPPED),
        Diverged(Position(1, 2, 3), Position(1), 4, 5, {"loss": math.nan}, 1, 0.5),
        ArtifactSaved(Path("weights/a.safetensors"), "weights"),
        RunEnd(Status.ABORTED, {"valid_nll": 0.1, "valid_loss": math.nan}),
    ],
)
def test_an_event_survives_its_line(event):
    line = json.loads(encode(event_to_line(event)))

    # NaN is not equal to itself.
    assert repr(event_from_line(type(event), line)) == repr(event)


# As jemtrack wrote it before its lines held all fields of the events.
OLD = {
    "run": [
        {"event": "run_start", "name": "a/B", "run_id": "run-1", "epoch": 0, "global_step": 0,
         "position": {"phase": 0, "epoch": 0, "batch": 0}, "parameters": {"lr": 0.1}},
        {"event": "phase_start", "name": "train", "position": {"phase": 0, "epoch": 0, "batch": 0},
         "n_phases": 1, "n_epochs": 1, "n_batches": 1},
        {"event": "phase_end", "name": "train", "position": {"phase": 0, "epoch": 1, "batch": 0},
         "reason": "1 epochs are done", "status": "success"},
        {"event": "artifact", "path": "w.safetensors", "kind": "weights"},
        {"event": "run_end", "status": "success", "metrics": {"train_loss": None}},
    ],
    "train": [{"epoch": 1, "batch": 1, "global_step": 1, "metrics": {"loss": 0.5}}],
    "epochs": [{"phase": "train", "epoch": 1, "global_step": 1, "metrics": {"train_loss": 0.5}}],
    "measured": [{"global_step": 0, "metrics": {"learning_rate.network": 0.1}}],
}  # fmt: skip


def test_an_older_record_is_understood(tmp_path):
    for name, entries in OLD.items():
        lines = ({"timestamp": "t", "session_id": "session-1", **entry} for entry in entries)
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(encode, lines)))

    assert repr([*recorded_events(tmp_path)]) == repr(
        [
            RunStart("a/B", {"lr": 0.1}, "run-1", "session-1"),
            Measured({"learning_rate.network": 0.1}, 0),
            PhaseStart(Position(), "train", 1, 1, 1),
            BatchEnd(Position(0, 0, 1), {"loss": 0.5}, 1),
            EpochEnd(Position(0, 1), {"train_loss": 0.5}, 1, 1),
            PhaseEnd(Position(0, 1), "train", "1 epochs are done"),
            ArtifactSaved(Path("w.safetensors"), "weights"),
            RunEnd(Status.SUCCESS, {"train_loss": math.nan}),
        ]
    )


def test_where_there_is_no_record_it_is_said(tmp_path):
    with pytest.raises(InputError, match="must hold the record of a run"):
        replay(tmp_path, [])


def test_the_command_tells_the_trackers_of_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    record(tmp_path / "record", whole_run())
    assert main(["replay", "record"]) == 1
    assert "jemtrack.yaml must list trackers" in capsys.readouterr().err
    Path("jemtrack.yaml").write_text("trackers: [{type: jsonl, folder: again}]")

    assert main(["replay", "record"]) == 0

    again = tmp_path / "experiment" / "test" / "Trainer" / "again"
    assert_same_record(read_record(again), expected(whole_run()))


def test_a_tracker_that_fails_is_told_of_in_a_line_and_the_others_get_the_record(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    record(tmp_path / "record", whole_run())
    (tmp_path / "runs.db").mkdir()
    Path("jemtrack.yaml").write_text("trackers: [{type: sql}, {type: jsonl, folder: again}]")

    assert main(["replay", "record"]) == 1

    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("jemtrack: record: SqlDatabase failed: OperationalError: ")
    again = tmp_path / "experiment" / "test" / "Trainer" / "again"
    assert_same_record(read_record(again), expected(whole_run()))
