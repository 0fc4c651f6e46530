import time

import pytest
from tracked_run import (
    FLAT,
    N_STEPS,
    assert_same,
    broken_off,
    curves,
    diverged_run,
    expected,
    tell_killed,
    tell_resumed,
    tell_to_end,
    whole_run,
)
from tracker_readers import event_files, single, tensorboard_points

from jemtrack.trackers.tensorboard import TensorBoard


def tensorboard(folder, every=1) -> TensorBoard:
    return TensorBoard(folder=str(folder), every=every)


def assert_shown(folder, events) -> None:
    record = expected(events)
    by_step = curves(record.batch, "batch/") | curves(record.measured, "measured/")
    assert_same(tensorboard_points(folder / "batches"), single(by_step))
    assert_same(tensorboard_points(folder / "epochs"), single(curves(record.epoch)))
    assert_same(tensorboard_points(folder / "run"), single(curves({0: record.run}, "run/")))


def next_second() -> None:
    """Event files are read in the order of the second in their names."""
    now = time.time()
    time.sleep(1.01 - now % 1)


def test_it_shows_the_run_and_its_parameters(tmp_path):
    tell_to_end(tensorboard(tmp_path), whole_run())

    assert_shown(tmp_path, whole_run())
    (table,) = event_files(tmp_path / "run").Tensors("parameters/text_summary")
    assert "| params.load_path | null |" in table.tensor_proto.string_val[0].decode()
    plugin = event_files(tmp_path / "run").summary_metadata["_hparams_/session_start_info"]
    for name, value in FLAT.items():
        if value is not None:  # TensorBoard has no null there
            assert name.encode() in plugin.plugin_data.content
            assert not isinstance(value, str) or value.encode() in plugin.plugin_data.content


@pytest.mark.parametrize(("every", "shown"), [(5, [5, 10]), (13, [])])
def test_batches_are_shown_every_so_many_steps(tmp_path, every, shown):
    tell_to_end(tensorboard(tmp_path, every), whole_run())

    found = tensorboard_points(tmp_path / "batches").get("batch/loss", [])
    assert [step for step, _ in found] == shown


def test_a_broken_off_run_shows_what_was_done(tmp_path):
    tell_to_end(tensorboard(tmp_path), broken_off(4))

    assert_shown(tmp_path, broken_off(4))


def test_a_resumed_run_shows_each_step_once(tmp_path):
    killed = tensorboard(tmp_path)
    state = tell_killed(killed)
    killed.close()
    found = tensorboard_points(tmp_path / "batches")["batch/loss"]
    assert len(found) == 7
    next_second()

    tell_resumed(tensorboard(tmp_path), state)

    assert_shown(tmp_path, whole_run())
    assert len(tensorboard_points(tmp_path / "batches")["batch/loss"]) == N_STEPS


def test_what_a_checkpoint_holds_is_on_the_disk_by_then(tmp_path):
    tracker = tensorboard(tmp_path)

    tell_killed(tracker)

    assert len(tensorboard_points(tmp_path / "batches")["batch/loss"]) >= 5
    tracker.close()


def test_what_is_void_after_a_divergence_is_not_shown(tmp_path):
    tell_to_end(tensorboard(tmp_path), diverged_run())

    assert_shown(tmp_path, diverged_run())
