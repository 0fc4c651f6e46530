"""What is other than before when training goes back: learning rates and noise."""

import math
import random

import numpy as np
import pytest
import torch
from diverging_run import make, record_of
from small_run import (
    N_BATCHES,
    N_STEPS,
    NAN,
    with_step,
)

from jemtrack.callbacks.learning_rate import LearningRate
from jemtrack.events.events import BatchEnd, Diverged, Measured
from jemtrack.shared.random_streams import random_state, restore_random_state, turn_random_state
from jemtrack.train.optimizers import (
    SCHEDULERS,
    CosineAnnealingLR,
    ExponentialLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

VALUES = [1.0, 2.0, 0.5, 0.75] * 2
SCHEDULES = {
    "none": None,
    "CosineAnnealingLR": CosineAnnealingLR(t_max=3, eta_min_factor=0.2),
    "StepLR": StepLR(step_size=2),
    "ExponentialLR": ExponentialLR(gamma=0.8),
    "OneCycleLR": OneCycleLR(),
    "ReduceLROnPlateau": ReduceLROnPlateau(
        metric="valid_loss", patience=0, factor=0.1, min_lr=0.02
    ),
}


def rates(folder, schedule, **options):
    """Give the learning rate at each epoch's start, the last that was told, and the return."""
    run = make(folder, LearningRate(), values=VALUES, lr_factor=0.25, **options)
    schedulers = {"net": SCHEDULES[schedule]} if SCHEDULES[schedule] else {}
    run.phases = [with_step(phase, schedulers=schedulers) for phase in run.phases]
    run.train()
    told = {event.step: event.metrics["learning_rate.net"] for event in record_of(run).of(Measured)}
    return [told[step] for step in range(0, N_STEPS, N_BATCHES)], record_of(run).of(Diverged)


def test_these_are_all_the_schedulers():
    assert SCHEDULES.keys() == {"none", *SCHEDULERS}


@pytest.mark.parametrize(("phase", "epoch"), [(0, 2), (1, 1)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_later_rates_are_scaled_whatever_the_scheduler(tmp_path, schedule, phase, epoch):
    """Least rates are scaled too, and so are the rates of later phases."""
    plain, _ = rates(tmp_path / "plain", schedule)

    scaled, (diverged,) = rates(
        tmp_path / "scaled", schedule, bad={(epoch, 1, 0): NAN}, phase=phase
    )

    first = math.ceil(diverged.step / N_BATCHES)
    assert scaled == pytest.approx([*plain[:first], *(0.25 * rate for rate in plain[first:])])


def test_batches_are_asked_for_other_noise(tmp_path):
    run = make(tmp_path, bad={(1, 0, 0): NAN, (2, 1, 1): NAN})
    run.train()

    first, second = (phase.batches.asked for phase in run.phases)
    assert first == [
        (0, 0, 0),
        (1, 0, 0),
        (0, 0, 1),
        (1, 0, 1),
        (2, 0, 1),
        (1, 1, 2),
        (2, 0, 2),
        (3, 0, 2),
    ]
    assert second == [(epoch, 0, 2) for epoch in range(4)]


def test_the_global_streams_go_another_way(tmp_path):
    """Batches and learning rates are as they were: dropout alone makes the difference."""
    losses = []
    for name, bad in (("plain", {}), ("again", {(0, 1, 0): NAN})):
        run = make(tmp_path / name, bad=bad, lr_factor=1.0)
        run.train()
        losses.append([end.metrics["loss"] for end in record_of(run).of(BatchEnd)[-N_STEPS:]])

    assert not {*losses[0]} & {*losses[1]}


def draws() -> list[float]:
    return [torch.rand(()).item(), np.random.rand(), random.random()]  # noqa: NPY002


def test_a_turn_moves_all_global_streams_by_their_state_and_its_number():
    """The same turn from the same state is the same way; another turn, or state, is another."""
    torch.manual_seed(0)
    start = random_state()
    drawn = [draws()]
    for turn in (1, 1, 2):
        restore_random_state(start)
        turn_random_state(turn)
        drawn.append(draws())
    torch.manual_seed(1)
    turn_random_state(1)
    drawn.append(draws())

    assert drawn[1] == drawn[2]
    for stream in zip(drawn[0], drawn[1], drawn[3], drawn[4], strict=True):
        assert len({*stream}) == 4
