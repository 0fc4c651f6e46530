import pandas as pd
import pytest
from tracked_run import (
    KEPT,
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

from jemtrack.events.events import Status
from jemtrack.record.history import HistoryCsv


def history(folder) -> HistoryCsv:
    return HistoryCsv(path=str(folder / "new" / "history.csv"))


def table(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "new" / "history.csv")


def points(folder) -> dict:
    """The metrics of the rows; an empty field stands for none, and for NaN."""
    rows = table(folder).set_index("epoch")
    levels = {epoch: row.dropna().to_dict() for epoch, row in rows.iterrows()}
    return curves(levels)


def wanted(events) -> dict:
    return {
        name: values for name, values in curves(expected(events).epoch).items()
        if name != "valid_loss"  # NaN throughout
    }  # fmt: skip


@pytest.mark.parametrize("status", Status)
def test_history_has_a_row_for_each_whole_epoch(tmp_path, status):
    tell_to_end(history(tmp_path), [*whole_run()[:-1], end(status)])

    assert table(tmp_path)["epoch"].tolist() == [1, 2, 3, 4]
    assert_same(points(tmp_path), wanted(whole_run()))


def test_an_epoch_that_breaks_off_has_no_row(tmp_path):
    tell_to_end(history(tmp_path), broken_off(4))

    assert table(tmp_path)["epoch"].tolist() == [1]


def test_a_resumed_run_that_has_no_epoch_left_writes_its_file_again(tmp_path):
    tracker = history(tmp_path)
    tell(tracker, [start(), *steps(1, 9)])
    before = table(tmp_path)
    (tmp_path / "new" / "history.csv").unlink()

    resumed = history(tmp_path)
    resumed.load_state_dict(tracker.state_dict())
    tell_to_end(resumed, [start(9), end()])

    assert table(tmp_path).equals(before)


def test_a_resumed_run_has_each_epoch_once_though_its_file_was_deleted(tmp_path):
    state = tell_killed(history(tmp_path))
    (tmp_path / "new" / "history.csv").unlink()

    tell_resumed(history(tmp_path), state)

    assert table(tmp_path)["epoch"].tolist() == [1, 2, 3, 4]
    assert_same(points(tmp_path), wanted(whole_run()))


def test_epochs_that_are_void_are_taken_away_at_once(tmp_path):
    tracker, events = history(tmp_path), diverged_run()
    after = next(i for i, event in enumerate(events) if type(event).__name__ == "Diverged")

    tell(tracker, events[: after + 1])
    assert table(tmp_path)["epoch"].tolist() == [1]
    tell_to_end(tracker, events[after + 1 :])

    assert_same(points(tmp_path), wanted(events))


def test_a_checkpoint_does_not_change_with_what_comes_after_it(tmp_path):
    tracker = history(tmp_path)
    tell(tracker, [start(), *steps(1, KEPT)])
    state = tracker.state_dict()

    tell_to_end(tracker, [*steps(KEPT + 1, 12), end()])

    assert [row["epoch"] for row in state["rows"]] == [1]
