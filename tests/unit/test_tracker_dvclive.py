import json

import yaml
from tracked_run import (
    assert_same,
    broken_off,
    curves,
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
from tracker_readers import dvclive_points

from jemtrack.trackers.dvclive import DvcLive


def live(folder) -> DvcLive:
    return DvcLive(folder=str(folder / "live"))


def summary(folder) -> dict:
    return json.loads((folder / "live" / "metrics.json").read_text())


def assert_shown(folder, events) -> None:
    record = expected(events)
    assert_same(dvclive_points(folder / "live"), curves(record.epoch))
    last = {name: values[-1][1] for name, values in curves(record.epoch).items()}
    run = {f"run.{name}": value for name, value in record.run.items()}
    found = {name: float(value) for name, value in summary(folder).items() if name != "step"}
    assert_same(found, last | run)
    assert summary(folder)["step"] == max(record.epoch)


def test_it_shows_the_epochs_and_the_parameters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    tell_to_end(live(tmp_path), whole_run())

    assert_shown(tmp_path, whole_run())
    shown = yaml.safe_load((tmp_path / "live" / "params.yaml").read_text())
    assert shown["params"]["lr"] == 0.1
    assert shown["losses"] == [{"weight": 0.25}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live"]


def test_a_resumed_run_shows_each_epoch_once(tmp_path):
    state = tell_killed(live(tmp_path))
    assert len(dvclive_points(tmp_path / "live")["train_loss"]) == 2

    tell_resumed(live(tmp_path), state)

    assert_shown(tmp_path, whole_run())


def test_files_that_a_kill_has_torn_do_not_stop_a_resumed_run(tmp_path):
    state = tell_killed(live(tmp_path))
    (tmp_path / "live" / "metrics.json").write_text('{"train_lo')
    with (tmp_path / "live" / "plots" / "metrics" / "train_loss.tsv").open("a") as file:
        file.write("1")

    tell_resumed(live(tmp_path), state)

    assert_shown(tmp_path, whole_run())


def test_a_run_that_begins_anew_leaves_nothing_of_the_one_before(tmp_path):
    tell_to_end(live(tmp_path), whole_run())

    events = [start(session="session-2"), *steps(1, 3), end()]
    tell_to_end(live(tmp_path), events)

    assert_shown(tmp_path, events)


def test_what_is_void_after_a_divergence_is_not_shown(tmp_path):
    tracker, events = live(tmp_path), diverged_run()
    after = next(i for i, event in enumerate(events) if type(event).__name__ == "Diverged")

    tell(tracker, events[: after + 1])
    assert set(dvclive_points(tmp_path / "live")["train_loss"]) == {(1, 1 / 7)}
    assert summary(tmp_path) == {"train_loss": 1 / 7, "step": 1}
    tell_to_end(tracker, events[after + 1 :])

    assert_shown(tmp_path, events)


def test_a_broken_off_run_shows_what_was_done(tmp_path):
    tell_to_end(live(tmp_path), broken_off(4))

    assert_shown(tmp_path, broken_off(4))
