import math

import pytest
from small_run import NAN, BreakOff, assert_same, epochs, make_run, resumed

from jemtrack.callbacks.early_stopping import EarlyStopping
from jemtrack.events.events import PhaseEnd, RunEnd, Status

FALLING = [-1, -2, -3, -4]


def trained(folder, values, **options):
    """Train with the validation's values, epoch by epoch of the run."""
    run = make_run(folder, EarlyStopping(metric="valid_loss", **options), values=values)
    run.train()
    return run


def ends(run):
    return [(end.name, end.status, end.position.epoch) for end in run.trackers[0].of(PhaseEnd)]


@pytest.mark.parametrize(
    ("values", "options", "n_epochs"),
    [
        ([3, 3, 1, 1], {"patience": 1}, 2),
        ([3, 3, 3, 1], {"patience": 2}, 3),
        ([3, 2, 1, 2], {"patience": 2}, 4),
        ([1, 2, 3, 4], {"patience": 2, "mode": "max"}, 4),
        ([1, 1, 3, 4], {"patience": 1, "mode": "max"}, 2),
        ([0, 0, -1, 0], {"patience": 2}, 4),
        ([0.0, 1, 1, 1], {"patience": 2}, 3),
        ([-1, 0, 1, 1], {"patience": 1, "mode": "max"}, 4),
        ([NAN, NAN, 1, 1], {"patience": 2}, 2),
        ([1, NAN, 0, NAN], {"patience": 2}, 4),
        ([1, NAN, 1, 0], {"patience": 2}, 3),
        ([NAN, 1, 0, 2], {"patience": 2}, 4),
        ([1, -math.inf, -math.inf, 0], {"patience": 2}, 3),
        ([1, None, None, None], {"patience": 1}, 4),
        ([1, None, 1, 0], {"patience": 1}, 3),
        ([3, 2.5, 2, 1.5], {"patience": 1, "least_change": 0.5}, 2),
        ([3, 2.5, 2, 1.5], {"patience": 2, "least_change": 0.5}, 4),
        ([3, 2.5, 2.25, 2.5], {"patience": 3, "least_change": 0.75}, 4),
        ([1, 1.5, 2, 2.5], {"patience": 1, "least_change": 0.5, "mode": "max"}, 2),
    ],
)
def test_the_phase_ends_when_patience_is_out(tmp_path, values, options, n_epochs):
    sign = -1 if options.get("mode") == "max" else 1
    run = trained(tmp_path, [*values[:n_epochs], *(sign * each for each in FALLING)], **options)

    status = Status.STOPPED if n_epochs < 4 else Status.SUCCESS
    assert ends(run) == [("first", status, n_epochs), ("second", Status.SUCCESS, 4)]


def test_each_phase_counts_afresh_and_the_last_one_s_stop_is_the_run_s(tmp_path):
    """9 is worse than what the first phase had, but no reason to stop the second at once."""
    run = trained(tmp_path, [1, 2, 9, 8, 8], patience=1)

    assert ends(run) == [("first", Status.STOPPED, 2), ("second", Status.STOPPED, 3)]
    assert [end.reason for end in run.trackers[0].of(PhaseEnd)] == [
        "valid_loss was never better than 1 (patience: 1)",
        "valid_loss was never better than 8 (patience: 1)",
    ]
    assert run.trackers[0].events[-1].status == Status.STOPPED
    assert epochs(run) == [1, 2, 3, 4, 5]


def test_patience_that_is_out_with_the_last_epoch_stops_nothing(tmp_path):
    run = trained(tmp_path, [2, 1, 1, 1, 2, 1, 1, 1], patience=2)

    assert {event.status for event in run.trackers[0].of(PhaseEnd, RunEnd)} == {Status.SUCCESS}
    assert epochs(run) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_one_phase_can_be_watched_alone(tmp_path):
    run = trained(tmp_path, [1, 1, 1, 1, 2, 2], patience=1, phase="second")

    assert ends(run) == [("first", Status.SUCCESS, 4), ("second", Status.STOPPED, 2)]


def test_a_metric_that_no_epoch_has_is_warned_of(tmp_path, caplog):
    run = make_run(tmp_path, EarlyStopping(metric="valid_nll", patience=1))
    run.train()

    assert epochs(run) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line for line in caplog.messages if "EarlyStopping" in line] == [
        f"EarlyStopping: no epoch of {phase} had a valid_nll that is a number"
        for phase in ("first", "second")
    ]


def stopping(folder, *callbacks):
    early = EarlyStopping(metric="valid_loss", patience=2)
    return make_run(folder, early, *callbacks, values=[1, NAN, 2, 0, 1, NAN])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = stopping(tmp_path_factory.mktemp("whole"), BreakOff())
    run.train()
    return run


@pytest.mark.parametrize("step", range(1, 13))
def test_the_count_goes_on_after_a_kill(tmp_path, step, whole):
    """The first phase's last epoch ends with step 6, and with a checkpoint."""
    assert ends(whole) == [("first", Status.STOPPED, 3), ("second", Status.STOPPED, 3)]

    assert_same(resumed(tmp_path, step, stopping), whole)


@pytest.mark.parametrize("step", [4, 5, 6])
def test_a_void_epoch_counts_no_more(tmp_path, step):
    """The step after epoch 2's first fails: epoch 2, or its end, happens again."""
    run = make_run(
        tmp_path,
        EarlyStopping(metric="valid_loss", patience=2),
        values=[1, 2, 0.5, 0.25, *FALLING],
        bad={step: NAN},
    )
    run.train()

    assert run.state.retries == 1
    assert ends(run)[-2:] == [("first", Status.SUCCESS, 4), ("second", Status.SUCCESS, 4)]
