import pytest
from small_run import NAN, STEPS, BreakOff, assert_same, make_run, resumed, with_step

from jemtrack.callbacks.learning_rate import LearningRate
from jemtrack.events.events import Diverged, EpochStart, Measured
from jemtrack.shared.metrics import check_metrics
from jemtrack.train.optimizers import ExponentialLR


def halving(folder, *callbacks, bad=None):
    run = make_run(folder, LearningRate(), *callbacks, bad=bad)
    schedulers = {"net": ExponentialLR(gamma=0.5)}
    run.phases = [with_step(phase, schedulers=schedulers) for phase in run.phases]
    return run


def rates(run):
    """Give the last that was told of each step."""
    return {event.step: event.metrics for event in run.trackers[0].of(Measured)}


HALVED = {
    8 * phase + 2 * epoch: {"learning_rate.net": pytest.approx(0.05 / 2**epoch)}
    for phase in (0, 1)
    for epoch in range(4)
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = halving(tmp_path_factory.mktemp("whole"), BreakOff())
    run.train()
    return run


def test_each_epoch_s_rate_is_announced_at_its_start(whole):
    told = whole.trackers[0].of(Measured, EpochStart)

    assert [type(event) for event in told] == [EpochStart, Measured] * 8
    assert rates(whole) == HALVED


def test_the_names_are_known(whole):
    for metrics in rates(whole).values():
        check_metrics(metrics)


@pytest.mark.parametrize("step", STEPS)
def test_after_a_kill_no_rate_is_told_again_that_the_record_has(tmp_path, step, whole):
    run = resumed(tmp_path, step, halving)

    assert_same(run, whole)
    resumed_after = (step - 1) // 3 * 3
    assert rates(run) == {step: HALVED[step] for step in HALVED if step >= resumed_after}
    assert len(run.trackers[0].of(Measured)) == len(rates(run))


@pytest.mark.parametrize(("bad", "back_to"), [(6, 3), (8, 6)])
def test_a_lower_rate_is_told_where_training_goes_back_to(tmp_path, bad, back_to):
    """Step 3 is in the middle of an epoch, step 6 the start of one: there it is told once."""
    run = halving(tmp_path, bad={bad: NAN})
    run.train()

    events = run.trackers[0].of(Measured, Diverged)
    (after,) = (number for number, event in enumerate(events) if isinstance(event, Diverged))
    assert {event.step: event.metrics for event in events[after + 1 :]} == {
        step: {"learning_rate.net": pytest.approx(0.5 * 0.05 / 2 ** (step // 2 % 4))}
        for step in {back_to, *HALVED}
        if step >= back_to
    }
    steps = [event.step for event in events[after + 1 :]]
    assert len(steps) == len(set(steps))
