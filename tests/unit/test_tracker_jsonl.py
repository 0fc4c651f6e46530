import json
import math
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracked_run import (
    KEPT,
    LOST,
    N_STEPS,
    assert_same_record,
    broken_off,
    diverged,
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

from jemtrack.events.events import ArtifactSaved, BatchEnd, PhaseStart, Position, RunStart
from jemtrack.record.jsonl import (
    JsonLines,
    LineFile,
    cut_after,
    encode,
    phase_file,
    read_lines,
    read_record,
)


def lines(path: Path) -> list[dict]:
    return list(read_lines(path))


def record(folder: Path) -> JsonLines:
    return JsonLines(folder=str(folder))


def batch_steps(folder: Path) -> list[int]:
    names = ("warm-up.jsonl", "joint.jsonl")
    return [line["global_step"] for name in names for line in lines(folder / name)]


MEASURED = [0, 3, 3, 6, 6, 9, 9, 12]


def measured_steps(folder: Path) -> list[int]:
    return [line["global_step"] for line in lines(folder / "measured.jsonl")]


def test_the_record_holds_the_run(tmp_path):
    tell_to_end(record(tmp_path / "new"), whole_run())

    assert_same_record(read_record(tmp_path / "new"), expected(whole_run()))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "epochs.jsonl", "joint.jsonl", "measured.jsonl", "run.jsonl", "warm-up.jsonl",
    ]  # fmt: skip


def test_a_batch_is_a_line_of_its_phases_file(tmp_path):
    tell_to_end(record(tmp_path), whole_run())

    last = lines(tmp_path / "joint.jsonl")[-1]
    assert list(last) == ["timestamp", "session_id", "epoch", "batch", "global_step", "metrics"]
    assert (last["session_id"], last["epoch"], last["batch"], last["global_step"]) == (
        "session-1", 2, 3, 12,
    )  # fmt: skip
    assert datetime.fromisoformat(last["timestamp"]).tzinfo
    assert batch_steps(tmp_path) == list(range(1, N_STEPS + 1))


def test_run_events_are_told_in_order(tmp_path):
    tell_to_end(record(tmp_path), whole_run())

    told = lines(tmp_path / "run.jsonl")
    assert [line["event"] for line in told] == [
        "run_start", "phase_start", "phase_end", "phase_start", "phase_end", "run_end",
    ]  # fmt: skip
    assert told[0]["run_id"] == "run-1"
    assert told[0]["parameters"]["params"]["norm"] == "batch"
    assert told[2]["reason"] == "2 epochs are done"
    assert told[-1]["status"] == "success"


def test_artifacts_are_noted(tmp_path):
    saved = ArtifactSaved(Path("weights/epoch_001.safetensors"), "weights")

    tell_to_end(record(tmp_path), [start(), saved])

    line = lines(tmp_path / "run.jsonl")[-1]
    assert (line["event"], line["kind"]) == ("artifact", "weights")
    assert line["path"] == "weights/epoch_001.safetensors"


def test_a_broken_off_run_has_the_batches_and_epochs_that_were_done(tmp_path):
    tell_to_end(record(tmp_path), broken_off(4))

    found = read_record(tmp_path)
    assert (list(found.batch), list(found.epoch)) == ([1, 2, 3, 4], [1])
    assert lines(tmp_path / "run.jsonl")[-1]["status"] == "failed"


def test_every_line_is_json_that_any_reader_takes(tmp_path):
    tell_to_end(record(tmp_path), diverged_run())

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    for path in tmp_path.iterdir():
        for line in path.read_text().splitlines():
            json.loads(line, parse_constant=refuse)
    assert lines(tmp_path / "epochs.jsonl")[1]["metrics"]["valid_loss"] is None


def test_no_step_stands_twice_after_a_resume(tmp_path):
    first = record(tmp_path)
    state = tell_killed(first)
    assert batch_steps(tmp_path) == list(range(1, LOST + 1))

    tell_resumed(record(tmp_path), json.loads(json.dumps(state)))

    assert_same_record(read_record(tmp_path), expected(whole_run()))
    assert batch_steps(tmp_path) == list(range(1, N_STEPS + 1))
    sessions = [line["session_id"] for line in lines(tmp_path / "warm-up.jsonl")]
    assert sessions == ["session-1"] * KEPT + ["session-2"]
    starts = [line for line in lines(tmp_path / "run.jsonl") if line["event"] == "run_start"]
    assert [line["global_step"] for line in starts] == [0, KEPT]


def test_a_measurement_that_is_repeated_after_a_resume_stands_once(tmp_path):
    first = record(tmp_path)
    tell(first, [start(), *steps(1, 6)])
    state = first.state_dict()
    tell(first, steps(7, 7))

    second = record(tmp_path)
    second.load_state_dict(state)
    tell_to_end(second, [start(6), *steps(7, N_STEPS), end()])

    assert measured_steps(tmp_path) == MEASURED


def test_a_measurement_that_is_repeated_after_a_divergence_stands_once(tmp_path):
    tracker = record(tmp_path)
    tell(tracker, [start(), *steps(1, 6)])
    tracker.state_dict()

    tell_to_end(tracker, [*steps(7, 8), diverged(8, 6), *steps(7, N_STEPS), end()])

    assert measured_steps(tmp_path) == MEASURED


def test_a_measurement_before_the_first_checkpoint_stands_once(tmp_path):
    tell(record(tmp_path), [start(), *steps(1, 2)])

    tell_to_end(record(tmp_path), whole_run())

    assert measured_steps(tmp_path) == MEASURED


def test_a_run_that_begins_anew_leaves_no_step_of_the_one_before(tmp_path):
    tell(record(tmp_path), [start(), *steps(1, LOST)])

    tell_to_end(record(tmp_path), [start(session="session-2"), *steps(1, 3)])

    assert batch_steps(tmp_path)[:3] == [1, 2, 3]
    assert not (tmp_path / "joint.jsonl").exists()
    assert read_record(tmp_path).run == {}


def test_no_step_stands_twice_after_a_divergence(tmp_path):
    tell_to_end(record(tmp_path), diverged_run())

    assert_same_record(read_record(tmp_path), expected(diverged_run()))
    assert batch_steps(tmp_path) == list(range(1, N_STEPS + 1))
    told = [line for line in lines(tmp_path / "run.jsonl") if line["event"] == "diverged"]
    assert told[0]["back_to"] == {"phase": 0, "epoch": 1, "batch": 2}
    assert told[0]["losses"] == {"loss": None}


def test_a_torn_line_is_not_read_and_is_cut_away(tmp_path):
    tell(record(tmp_path), [start(), *steps(1, 2)])
    with (tmp_path / "run.jsonl").open("ab") as file:
        file.write(b'{"timestamp": "2')

    assert len(lines(tmp_path / "run.jsonl")) == 2
    tell_to_end(record(tmp_path), whole_run())
    assert len(lines(tmp_path / "run.jsonl")) == 8


@pytest.mark.parametrize("phase", ["run", "epochs", "measured", "../up", "a/b", "ü %"])
def test_any_name_of_a_phase_makes_a_file_of_its_own(tmp_path, phase):
    folder = tmp_path / "record"
    events = [
        RunStart("r", {}),
        PhaseStart(Position(), phase, 1, 1, 1),
        BatchEnd(Position(0, 0, 1), {"loss": 2.0}, 1),
    ]

    tell_to_end(record(folder), events)

    assert (folder / phase_file(phase)).parent == folder
    assert read_record(folder).batch == {1: {"loss": 2.0}}
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


@given(names=st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=5))
def test_no_two_phases_share_a_file(names):
    names += ["run", "phase=run"]
    assert len({phase_file(name) for name in names}) == len(set(names))


@given(values=st.lists(st.floats(), min_size=1))
def test_numbers_survive_to_the_last_bit_and_what_is_not_finite_is_null(values):
    found = json.loads(encode({"metrics": {"all": values}}))["metrics"]["all"]

    assert found == [value if math.isfinite(value) else None for value in values]


@given(
    entries=st.lists(st.integers(1, 5), max_size=6).map(sorted),
    torn=st.integers(0, 8),
    last=st.integers(0, 6),
)
def test_a_file_is_cut_after_the_last_line_that_counts(tmp_path_factory, entries, torn, last):
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    path.write_bytes(b"".join(encode({"step": step}) for step in entries) + b'{"step": 0}'[:torn])

    cut_after(path, "step", last)

    wanted = [{"step": step} for step in entries if step <= last]
    assert path.exists() == bool(wanted)
    assert lines(path) == wanted


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    file = LineFile(path)
    file.write({"step": 1})

    class Full:
        name = "a.jsonl"
        inner = file._file

        def write(self, line):
            return self.inner.write(line[:4])

        def __getattr__(self, name):
            return getattr(self.inner, name)

    monkeypatch.setattr(file, "_file", Full())
    with pytest.raises(OSError, match="disk is full"):
        file.write({"step": 2})
    monkeypatch.undo()
    file.write({"step": 3})

    assert path.read_bytes() == encode({"step": 1}) + encode({"step": 3})


WRITE_UNTIL_KILLED = """
import sys
from jemtrack.events.events import ArtifactSaved, BatchEnd, PhaseStart, Position, RunStart
from jemtrack.record.jsonl import JsonLines

tracker = JsonLines(folder=sys.argv[1])
tracker(RunStart("r", {}))
tracker(PhaseStart(Position(), "train", 1, 1, 1))
step = 0
while True:
    step += 1
    tracker(BatchEnd(Position(0, 0, step), {"loss": 1 / step}, step))
    if step == 1000:
        print("ready", flush=True)
"""


def test_a_kill_leaves_whole_lines(tmp_path):
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)

    content = (tmp_path / "train.jsonl").read_bytes()
    assert content.endswith(b"\n")
    found = [json.loads(line)["global_step"] for line in content.splitlines()]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 1000
