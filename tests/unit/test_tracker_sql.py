import sqlite3

import pytest
import sqlalchemy
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable
from tracked_run import (
    FLAT,
    KEPT,
    LOST,
    assert_same_record,
    broken_off,
    diverged_run,
    end,
    expected,
    start,
    steps,
    tell,
    tell_killed,
    tell_resumed,
    tell_to_end,
    whole_run,
)
from tracker_readers import sql_record

from jemtrack.errors import InputError
from jemtrack.events.events import ArtifactSaved, Measured, Status
from jemtrack.record.jsonl import Record
from jemtrack.trackers.database.store import metadata
from jemtrack.trackers.sql import SqlDatabase


def database(folder) -> SqlDatabase:
    return SqlDatabase(url=f"sqlite:///{folder}/new/runs.db")


def query(folder, statement, *values) -> list[tuple]:
    connection = sqlite3.connect(folder / "new" / "runs.db")
    rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


def read(folder, run_id="run-1") -> Record:
    return sql_record(folder / "new" / "runs.db", run_id)


def test_the_tables_hold_the_run(tmp_path):
    tell_to_end(database(tmp_path), whole_run())

    assert_same_record(read(tmp_path), expected(whole_run()))
    (row,) = query(tmp_path, "SELECT id, name, status, started <= ended FROM run")
    assert row == ("run-1", "test/Trainer", "success", 1)
    parameters = dict(query(tmp_path, "SELECT name, value FROM parameter"))
    assert parameters.keys() == FLAT.keys()
    assert (parameters["params.lr"], parameters["params.load_path"]) == ("0.1", "null")


@pytest.mark.parametrize("status", list(Status))
def test_the_run_ends_with_its_status(tmp_path, status):
    tell_to_end(database(tmp_path), [*broken_off(4)[:-1], end(status)])

    assert query(tmp_path, "SELECT status FROM run") == [(str(status),)]
    assert_same_record(read(tmp_path), expected([*broken_off(4)[:-1], end(status)]))


def test_a_run_whose_end_was_never_told_has_failed_and_keeps_what_waited(tmp_path):
    events = [start(), *steps(1, 5)]

    tell_to_end(database(tmp_path), events)

    assert query(tmp_path, "SELECT status FROM run") == [("failed",)]
    assert_same_record(read(tmp_path), expected(events))


def test_a_resumed_run_has_each_step_once(tmp_path):
    state = tell_killed(database(tmp_path))
    assert query(tmp_path, "SELECT status, ended FROM run") == [("running", None)]
    assert {*range(1, KEPT + 1)} <= read(tmp_path).batch.keys() <= {*range(1, LOST + 1)}

    tell_resumed(database(tmp_path), state)

    assert_same_record(read(tmp_path), expected(whole_run()))
    assert query(tmp_path, "SELECT id, step FROM session ORDER BY step") == [
        ("session-1", 0), ("session-2", KEPT),
    ]  # fmt: skip
    assert query(tmp_path, "SELECT status FROM run") == [("success",)]


def test_a_resumed_run_voids_what_was_written_after_its_checkpoint(tmp_path):
    tell_to_end(database(tmp_path), [*whole_run()[:-1], end(Status.ABORTED)])
    tracker = database(tmp_path)

    tracker(start(KEPT, "session-2"))

    assert_same_record(read(tmp_path), expected([start(), *steps(1, KEPT)]))
    tracker.close()


def test_what_is_void_after_a_divergence_is_deleted(tmp_path):
    tell_to_end(database(tmp_path), diverged_run())

    assert_same_record(read(tmp_path), expected(diverged_run()))


def test_what_is_measured_twice_at_a_step_stands_as_it_was_last(tmp_path):
    events = [start(), *steps(1, 3), Measured({"memory_mib": 1.0}, 3), *steps(4, 6)]
    tracker = database(tmp_path)

    tell(tracker, events)
    tell_to_end(tracker, [Measured({"memory_mib": 2.0}, 3)])

    assert read(tmp_path).measured[3]["memory_mib"] == 2.0


def test_runs_share_a_database_and_do_not_touch_one_another(tmp_path):
    other = [*whole_run()]
    other[0] = type(other[0])("other", {}, "run-2", "session-1")
    tell_to_end(database(tmp_path), whole_run())

    tell_to_end(database(tmp_path), other)

    assert_same_record(read(tmp_path, "run-1"), expected(whole_run()))
    assert_same_record(read(tmp_path, "run-2"), expected(whole_run()))


def test_artifacts_are_noted(tmp_path):
    saved = ArtifactSaved(tmp_path / "epoch_001.safetensors", "weights")

    tell_to_end(database(tmp_path), [start(), saved, saved, end()])

    assert query(tmp_path, "SELECT path, kind FROM artifact") == [(str(saved.path), "weights")]


@pytest.mark.parametrize("url", ["runs.db", "nothing://host/runs", "oracle+nothing://host/runs"])
def test_a_url_that_names_no_database_is_refused(url):
    with pytest.raises(InputError, match=r"SqlDatabase\.url must be"):
        SqlDatabase(url=url)


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()])
def test_the_tables_are_of_no_database_alone(dialect):
    made = [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables]

    assert all("PRIMARY KEY" in statement for statement in made)
    assert not any("SERIAL" in statement for statement in made)
    assert isinstance(metadata.tables["metric"].c.value.type, sqlalchemy.Double)
