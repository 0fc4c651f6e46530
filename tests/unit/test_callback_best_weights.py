import copy
import shutil

import pytest
from small_run import (
    NAN,
    STEPS,
    BreakOff,
    PowerCutError,
    assert_same,
    files,
    holds,
    make_run,
    resumed,
)

from jemtrack.callbacks.best_weights import BestWeights
from jemtrack.callbacks.ema import Ema
from jemtrack.events.events import ArtifactSaved, Diverged, EpochEnd, RunEnd
from jemtrack.events.handlers import Callback

# The best of all is after epoch 5, in the second phase; epoch 2 has the best of the first.
VALUES = [2.0, 0.5, NAN, 0.5, 0.0, NAN, None, 1.0]


class CheckpointManager(Callback):
    """Keeps what was served after each epoch."""

    def _post_init_(self) -> None:
        self.served = {}

    def __call__(self, event, state) -> None:
        if isinstance(event, EpochEnd):
            self.served[event.epoch] = copy.deepcopy(state.served["net"])


def trained(folder, *, values=VALUES, **options):
    callbacks = BestWeights(metric="valid_loss", **options), CheckpointManager()
    run = make_run(folder, *callbacks, values=values)
    run.train()
    return run, run.folder / "best.safetensors", run.callbacks[1].served


@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [
        (VALUES, "min", 5),
        (VALUES, "max", 1),
        ([NAN, 1, 1, NAN, 1, 2, 2, NAN], "min", 2),
        ([0, 0.0, -0.0, NAN, 1, 2, 2, NAN], "min", 1),
        ([-1, 0, float("inf"), 0, -1, -1, None, NAN], "max", 2),
        ([8, 7, 6, 5, 4, 3, 2, 1], "min", 8),
    ],
)
def test_the_file_has_the_weights_of_the_best_epoch(tmp_path, values, mode, best):
    run, path, served = trained(tmp_path, values=values, mode=mode)

    assert holds(path, served[best])
    assert files(run).keys() == {"best.safetensors"}
    # Without `restore`, the run ends as it would have anyway.
    assert holds(path, run.state.models["net"]) == (best == 8)
    assert run.trackers[0].events[-1] == RunEnd("success", run.state.latest)


def test_each_new_best_is_announced(tmp_path):
    run, path, _ = trained(tmp_path, file="kept/best.safetensors")

    kept = path.with_name("kept") / path.name
    assert run.trackers[0].of(ArtifactSaved) == [ArtifactSaved(kept, "weights")] * 3
    assert kept.is_file()


def test_with_restore_the_run_ends_with_the_best_weights_and_their_metrics(tmp_path):
    run, path, served = trained(tmp_path, restore=True)

    assert holds(path, served[5])
    assert holds(path, run.state.models["net"])
    (fifth,) = (end for end in run.trackers[0].of(EpochEnd) if end.epoch == 5)
    assert run.state.latest == fifth.metrics
    assert run.trackers[0].events[-1] == RunEnd("success", fifth.metrics)


def test_nothing_is_restored_between_phases(tmp_path):
    """The second phase goes on from the last weights, not from the best ones."""
    plain, restored = trained(tmp_path / "a")[2], trained(tmp_path / "b", restore=True)[2]

    for epoch in plain:
        ours, theirs = plain[epoch].state_dict(), restored[epoch].state_dict()
        assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_the_phase_with_the_best_weights_can_be_named(tmp_path):
    _, path, served = trained(tmp_path, phase="first")

    assert holds(path, served[2])


def test_without_a_best_epoch_there_is_no_file_and_nothing_to_restore(tmp_path, caplog):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "best.safetensors").write_bytes(b"another run's")

    run, _, served = trained(tmp_path, values=[NAN] * 8, restore=True)

    assert files(run) == {}
    ours, last = run.state.models["net"].state_dict(), served[8].state_dict()
    assert all(ours[name].equal(last[name]) for name in last)
    assert "BestWeights: no epoch of second had a valid_loss that is a number" in caplog.messages


def restoring(folder, *callbacks):
    shutil.rmtree(folder / "files", ignore_errors=True)  # as in a workspace without old files
    best = BestWeights(metric="valid_loss", restore=True)
    return make_run(folder, best, Ema(decay=0.5), *callbacks, values=VALUES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = restoring(tmp_path_factory.mktemp("whole"), BreakOff())
    run.train()
    return run


@pytest.mark.parametrize("step", STEPS)
def test_file_and_weights_survive_a_kill_bit_for_bit(tmp_path, step, whole):
    """The averages are restored to the best; the weights of the last step stay to be compared."""
    assert_same(resumed(tmp_path, step, restoring), whole)


def test_a_best_epoch_that_is_void_is_so_in_the_file_too(tmp_path):
    """Epoch 2 is the best but happened in vain: the failing step 5 goes back to step 3."""
    told = []

    class Look(Callback):
        def __call__(self, event, state) -> None:
            path = self.run_folder / "best.safetensors"
            told.append((type(event).__name__, path.read_bytes() if path.exists() else None))

    values = [2.0, 0.5, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    best, look = BestWeights(metric="valid_loss"), Look()
    run = make_run(tmp_path, best, look, CheckpointManager(), values=values, bad={5: NAN})
    run.train()

    first, second, *_ = (content for name, content in told if name == "EpochEnd")
    (again,) = (content for name, content in told if name == "Diverged")
    assert first != second
    assert again == first
    assert run.trackers[0].of(Diverged, ArtifactSaved)[2:4] == [
        *run.trackers[0].of(Diverged),
        ArtifactSaved(run.folder / "best.safetensors", "weights"),
    ]


def test_a_file_that_cannot_be_written_ends_the_run_and_leaves_the_one_before(tmp_path):
    run = make_run(tmp_path, BestWeights(metric="valid_loss"), values=[2.0, 1.0] * 4)
    written = []

    def fail_in_the_middle(path, models):
        path.write_bytes(b"half")
        if written:
            raise PowerCutError
        written.append(path)

    run.save_weights = fail_in_the_middle
    with pytest.raises(PowerCutError):
        run.train()

    (kept,) = (path for path in run.folder.iterdir() if path.name == "best.safetensors")
    assert kept.read_bytes() == b"half"
    assert [path.name for path in written] == ["best.unfinished.safetensors"]
