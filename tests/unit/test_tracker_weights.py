import pytest
from tracked_run import broken_off, tell_to_end, whole_run

from jemtrack.engine.events import ArtifactSaved
from jemtrack.trackers.weights import PeriodicWeights


@pytest.mark.parametrize(("every", "saved"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3]), (5, [])])
def test_weights_are_saved_and_announced_every_so_many_epochs_of_the_run(tmp_path, every, saved):
    paths, announced = [], []
    tracker = PeriodicWeights(paths.append, tmp_path, every)
    tracker.announce = announced.append

    tell_to_end(tracker, whole_run())

    assert paths == [tmp_path / f"epoch_{epoch:03d}.safetensors" for epoch in saved]
    assert announced == [ArtifactSaved(path, "weights") for path in paths]


def test_an_epoch_that_was_broken_off_leaves_no_weights(tmp_path):
    paths = []

    tell_to_end(PeriodicWeights(paths.append, tmp_path, 1), broken_off(4))

    assert paths == [tmp_path / "epoch_001.safetensors"]
