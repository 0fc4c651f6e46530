"""A run that goes back, and is killed."""

from functools import partial

import pytest
from diverging_run import CUSP, make, record_of
from small_run import (
    NAN,
    STEPS,
    BreakOff,
    PowerCutError,
    assert_same,
    resumed,
)

from jemtrack.errors import TrainingDivergedError
from jemtrack.events.events import BatchEnd, Diverged, Event
from jemtrack.events.handlers import Callback
from jemtrack.train.state import TrainState


class KillAfterReturn(Callback):
    """Breaks off after the first step since training went back."""

    def __call__(self, event: Event, state: TrainState) -> None:
        self.back = getattr(self, "back", False) or isinstance(event, Diverged)
        if self.back and isinstance(event, BatchEnd):
            raise PowerCutError


def test_kills_give_a_run_no_more_chances(tmp_path):
    told, ends = [], []
    for _ in range(5):
        run = make(
            tmp_path, KillAfterReturn(), bad={(2, 1, n): NAN for n in range(9)}, max_retries=3
        )
        with pytest.raises((PowerCutError, TrainingDivergedError)) as caught:
            run.train()
        told += [(event.retry, event.lr_scale) for event in record_of(run).of(Diverged)]
        ends.append(caught.type)

    assert told == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert ends == [PowerCutError] * 3 + [TrainingDivergedError] * 2


class Power(Callback):
    """Breaks off while everybody is told that training goes back."""

    def __init__(self, *, cut: bool) -> None:
        self.cut = cut

    def __call__(self, event: Event, state: TrainState) -> None:
        if self.cut and isinstance(event, Diverged):
            raise PowerCutError


BAD = {(1, 1, 0): NAN, (3, 0, 1): CUSP}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = make(tmp_path_factory.mktemp("whole"), BreakOff(), bad=BAD)
    run.train()
    assert [event.step for event in record_of(run).of(Diverged)] == [3, 6]
    return run


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_went_back_survives_a_kill_bit_for_bit(tmp_path, step, whole):
    assert_same(resumed(tmp_path, step, partial(make, bad=BAD)), whole)


def test_a_kill_in_the_middle_of_a_return_is_no_loss(tmp_path, whole):
    with pytest.raises(PowerCutError):
        make(tmp_path, Power(cut=True), bad=BAD).train()

    run = make(tmp_path, Power(cut=False), bad=BAD)
    run.train()

    assert_same(run, whole)
