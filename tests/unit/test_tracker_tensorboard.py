import io
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tracked_run import (
    FLAT,
    N_BATCHES,
    N_STEPS,
    assert_same,
    broken_off,
    diverged_run,
    end,
    expected,
    position,
    start,
    steps,
    tell,
    tell_killed,
    tell_resumed,
    tell_to_end,
    whole_run,
)
from tracker_readers import event_files, single, tensorboard_expected, tensorboard_points

from jemtrack.events.events import ArtifactSaved, EpochEnd
from jemtrack.trackers.tensorboard import TensorBoard


def tensorboard(folder, every=1) -> TensorBoard:
    return TensorBoard(folder=str(folder), every=every)


def assert_shown(folder, events) -> None:
    steps = {epoch: epoch * N_BATCHES for epoch in range(1, 5)}
    wanted = tensorboard_expected(expected(events), steps)
    assert_same(tensorboard_points(folder / "run-1"), single(wanted))


def next_second() -> None:
    """Event files are read in the order of the second in their names."""
    now = time.time()
    time.sleep(1.01 - now % 1)


def test_it_shows_the_run_and_its_parameters(tmp_path):
    tell_to_end(tensorboard(tmp_path), whole_run())

    assert_shown(tmp_path, whole_run())
    (table,) = event_files(tmp_path / "run-1").Tensors("parameters/text_summary")
    assert "| params.load_path | null |" in table.tensor_proto.string_val[0].decode()
    plugin = event_files(tmp_path / "run-1").summary_metadata["_hparams_/session_start_info"]
    for name, value in FLAT.items():
        if value is not None:  # TensorBoard has no null there
            assert name.encode() in plugin.plugin_data.content
            assert not isinstance(value, str) or value.encode() in plugin.plugin_data.content


@pytest.mark.parametrize(("every", "shown"), [(5, [5, 10]), (13, [])])
def test_batches_are_shown_every_so_many_steps(tmp_path, every, shown):
    tell_to_end(tensorboard(tmp_path, every), whole_run())

    found = tensorboard_points(tmp_path / "run-1").get("batch/loss", [])
    assert [step for step, _ in found] == shown


def test_a_broken_off_run_shows_what_was_done(tmp_path):
    tell_to_end(tensorboard(tmp_path), broken_off(4))

    assert_shown(tmp_path, broken_off(4))


def test_a_resumed_run_shows_each_step_once(tmp_path):
    killed = tensorboard(tmp_path)
    state = tell_killed(killed)
    killed.close()
    found = tensorboard_points(tmp_path / "run-1")["batch/loss"]
    assert len(found) == 7
    next_second()

    tell_resumed(tensorboard(tmp_path), state)

    assert_shown(tmp_path, whole_run())
    assert len(tensorboard_points(tmp_path / "run-1")["batch/loss"]) == N_STEPS


def test_what_a_checkpoint_holds_is_on_the_disk_by_then(tmp_path):
    tracker = tensorboard(tmp_path)

    tell_killed(tracker)

    assert len(tensorboard_points(tmp_path / "run-1")["batch/loss"]) >= 5
    tracker.close()


def test_what_is_void_after_a_divergence_is_not_shown(tmp_path):
    tell_to_end(tensorboard(tmp_path), diverged_run())

    assert_shown(tmp_path, diverged_run())


@pytest.mark.parametrize("kept", [0, 2, 3, 6])
def test_a_session_that_resumes_at_the_end_of_an_epoch_shows_each_point_once(tmp_path, kept):
    """The first session is killed where the next one resumes, or a moment after it."""
    killed = tensorboard(tmp_path)
    tell(killed, [start(), *steps(1, kept)])
    state = killed.state_dict()
    if kept:
        # It comes again, as when the checkpoint was made before the end of the epoch.
        tell(killed, [EpochEnd(position(kept), {"train_loss": 9.0}, 1, kept)])
    killed.close()
    next_second()

    resumed = tensorboard(tmp_path)
    resumed.load_state_dict(state)
    tell_to_end(resumed, [start(kept, "session-2"), *steps(kept + 1, N_STEPS), end()])

    assert_shown(tmp_path, whole_run())


def test_a_later_run_of_the_stage_is_shown_beside_the_one_before(tmp_path):
    for run_id in ("0123456789", "abcdef0123"):
        tell_to_end(tensorboard(tmp_path), [replace(start(), run_id=run_id), *steps(1, 3), end()])

    assert sorted(path.name for path in tmp_path.iterdir()) == ["01234567", "abcdef01"]
    assert all(tensorboard_points(path)["epoch"] == [(3, 1.0)] for path in tmp_path.iterdir())


def test_an_image_of_samples_is_shown_and_other_files_are_not(tmp_path):
    pixels_HWC = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels_HWC).save(tmp_path / "MaxEntropyL2.png")
    saved = [ArtifactSaved(tmp_path / name, "results") for name in ("MaxEntropyL2.png", "m.json")]

    tell_to_end(tensorboard(tmp_path / "logs"), [start(), *saved, end()])

    found = EventAccumulator(str(tmp_path / "logs" / "run-1")).Reload()
    assert found.Tags()["images"] == ["MaxEntropyL2"]
    (shown,) = found.Images("MaxEntropyL2")
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(shown.encoded_image_string))), pixels_HWC
    )
