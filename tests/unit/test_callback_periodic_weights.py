import pytest
from small_run import STEPS, BreakOff, assert_same, files, holds, make_run, resumed

from jemtrack.callbacks.periodic_weights import PeriodicWeights
from jemtrack.errors import InputError
from jemtrack.events.events import ArtifactSaved, BatchEnd
from jemtrack.events.handlers import Callback


@pytest.mark.parametrize(
    ("every", "saved"), [(1, range(1, 9)), (2, [2, 4, 6, 8]), (3, [3, 6]), (9, [])]
)
def test_weights_are_saved_and_announced_every_so_many_epochs_of_the_run(tmp_path, every, saved):
    run = make_run(tmp_path, PeriodicWeights(every=every, folder="kept"))
    run.train()

    paths = [run.folder / "kept" / f"epoch_{epoch:03d}.safetensors" for epoch in saved]
    assert run.trackers[0].of(ArtifactSaved) == [ArtifactSaved(path, "weights") for path in paths]
    assert [*files(run)] == [path.name for path in paths]


def test_a_file_has_the_weights_of_its_epoch(tmp_path):
    run = make_run(tmp_path, PeriodicWeights(every=4))
    run.train()

    last, middle = run.folder / "epoch_008.safetensors", run.folder / "epoch_004.safetensors"
    assert holds(last, run.state.models["net"])
    assert not holds(middle, run.state.models["net"])


def test_an_epoch_that_was_broken_off_leaves_no_weights(tmp_path):
    class Stop(Callback):
        def __call__(self, event, state) -> None:
            if isinstance(event, BatchEnd) and event.step == 4:
                raise RuntimeError

    run = make_run(tmp_path, PeriodicWeights(every=1), Stop())
    with pytest.raises(RuntimeError):
        run.train()

    assert [*files(run)] == ["epoch_001.safetensors"]


def periodic(folder, *callbacks):
    return make_run(folder, PeriodicWeights(every=2), *callbacks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = periodic(tmp_path_factory.mktemp("whole"), BreakOff())
    run.train()
    return run


@pytest.mark.parametrize("step", STEPS)
def test_the_files_are_those_of_a_run_that_was_never_killed(tmp_path, step, whole):
    assert_same(resumed(tmp_path, step, periodic), whole)


def test_a_run_that_was_told_of_no_way_to_save_says_so(tmp_path):
    run = make_run(tmp_path, PeriodicWeights(every=1))
    run.save_weights = None

    with pytest.raises(InputError, match="pass the run a function `save_weights`"):
        run.train()
