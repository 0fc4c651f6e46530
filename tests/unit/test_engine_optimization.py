"""What a recipe chooses is what torch does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import ClassVar

import pytest
import torch
from fitting import fitted, rates_at
from torch import nn

from jemtrack.errors import InputError
from jemtrack.events.events import BatchEnd, BatchStart, EpochEnd, EpochStart, PhaseEnd
from jemtrack.parameters import parameters
from jemtrack.shared.metrics import declare_metric
from jemtrack.train.optimizers import (
    OPTIMIZERS,
    SGD,
    CosineAnnealingLR,
    ExponentialLR,
    Lion,
    OneCycleLR,
    OwnOptimizer,
    OwnScheduler,
    ReduceLROnPlateau,
    StepLR,
)
from jemtrack.train.phase import Phase, Validation
from jemtrack.train.recipe import Step, Transition
from jemtrack.train.state import TrainState

LR, N_EPOCHS = 0.01, 7
OF_TORCH = sorted({*OPTIMIZERS} - {"Lion"})
# As a validation may go: better, worse three times, better, worse.
COURSE = [5.0, 4.0, 4.5, 4.4, 4.3, 3.0, 3.5]
declare_metric("own")

SCHEDULES = {
    "none": (None, None),
    "step": (StepLR(step_size=2, gamma=0.5), ("StepLR", {"step_size": 2, "gamma": 0.5})),
    "exponential": (ExponentialLR(gamma=0.9), ("ExponentialLR", {"gamma": 0.9})),
    "cosine": (
        CosineAnnealingLR(eta_min_factor=0.1),
        ("CosineAnnealingLR", {"T_max": N_EPOCHS, "eta_min": LR / 10}),
    ),
    "short cosine": (
        CosineAnnealingLR(t_max=3),
        ("CosineAnnealingLR", {"T_max": 3, "eta_min": 0.0}),
    ),
    "plateau": (
        ReduceLROnPlateau(metric="valid_nll", factor=0.5, patience=1),
        ("ReduceLROnPlateau", {"factor": 0.5, "patience": 1}),
    ),
    "highest": (
        ReduceLROnPlateau(metric="valid_nll", mode="max", factor=0.5, patience=0, threshold=0.3),
        ("ReduceLROnPlateau", {"mode": "max", "factor": 0.5, "patience": 0, "threshold": 0.3}),
    ),
}


@parameters
class LineStep(Step):
    """A step of two linear maps, which one optimizer trains."""

    models: ClassVar[tuple[str, ...]] = ("line",)
    optimized: ClassVar[Mapping[str, tuple[str, ...]]] = {"both": ("line.0", "line.1")}


@dataclass(frozen=True)
class Numbers:
    """Batches that are their own loss."""

    values: tuple[float, ...] = (3.0, 2.0)

    def __len__(self):
        return len(self.values)

    def epoch(self, epoch, start=0, retry=0):
        yield from self.values[start:]


def objective(models, batch):
    weights = torch.cat([weight.flatten() for weight in models["line"].parameters()])
    return {"loss": weights.sum() - weights.sum().detach() + batch, "own": torch.tensor(batch)}


def phase_of(
    step: Step, batches: Numbers | None = None, validation: Validation | None = None, **own
) -> Phase:
    return Phase(step, objective, batches or Numbers(), validation, **own)


def entered(phase: Phase) -> TrainState:
    torch.manual_seed(0)
    line = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state = TrainState({"line": line})
    state.enter(phase)
    return state


def rates_of(phase: Phase) -> list[float]:
    return rates_at(EpochStart, entered(phase), phase, "both")


def rates_of_torch(optimizer: str, scheduler: tuple | None) -> list[float]:
    """The same, written out."""
    made = getattr(torch.optim, optimizer)([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduled = None
    if scheduler:
        name, options = scheduler
        scheduled = getattr(torch.optim.lr_scheduler, name)(made, **options)
    rates = []
    for value in COURSE:
        rates.append(made.param_groups[0]["lr"])
        made.step()
        if scheduler:
            scheduled.step(*([value] if name == "ReduceLROnPlateau" else []))
    return rates


@pytest.mark.parametrize("optimizer", OF_TORCH)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rates_are_torch_s_own(optimizer, schedule):
    chosen, published = SCHEDULES[schedule]
    step = LineStep(
        name="a",
        n_epochs=N_EPOCHS,
        optimizers={"both": OPTIMIZERS[optimizer](lr=LR)},
        schedulers={"both": chosen} if chosen else {},
    )
    course = iter(COURSE)
    validation = Validation(lambda models: {"valid_nll": next(course)})

    rates = rates_of(phase_of(step, validation=validation))

    assert rates == rates_of_torch(optimizer, published)
    assert (len({*rates}) > 1) == (chosen is not None)


def test_a_plateau_waits_where_its_metric_is_not_measured():
    step = LineStep(
        name="a",
        n_epochs=N_EPOCHS,
        optimizers={"both": SGD(lr=LR)},
        schedulers={"both": ReduceLROnPlateau(metric="valid_nll", factor=0.5, patience=0)},
    )
    validation = Validation(lambda models: {"valid_nll": 1.0}, every=3)

    # Measured after the epochs 3, 6 and 7, of which 6 is the first that is no better.
    assert rates_of(phase_of(step, validation=validation)) == [LR] * 6 + [LR / 2]


@pytest.mark.parametrize("name", OF_TORCH)
def test_an_optimizer_has_the_options_that_were_chosen(name):
    choice = OPTIMIZERS[name](lr=LR, weight_decay=0.25, clip_norm=2.0)
    phase = phase_of(LineStep(name="a", n_epochs=1, optimizers={"both": choice}))

    (optimizer,) = entered(phase).optimizers.values()

    assert isinstance(optimizer, getattr(torch.optim, name))
    assert type(optimizer).__name__ == name
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (LR, 0.25)
    assert phase.step.optimizers["both"].clip_norm == 2.0


def test_a_cosine_s_least_rate_is_a_share_of_the_rate_after_a_divergence():
    step = LineStep(
        name="a",
        n_epochs=4,
        optimizers={"both": SGD(lr=LR)},
        schedulers={"both": CosineAnnealingLR(eta_min_factor=0.5)},
    )
    phase = phase_of(step)
    state = entered(phase)
    state.lr_scale = 0.1
    state.enter(phase)

    assert state.schedulers["both"].eta_min == pytest.approx(LR / 20)


def test_a_clip_norm_bounds_what_a_step_changes():
    """The gradient is 1 in each of the 12 weights: its norm is the root of 12."""

    def change(clip_norm):
        sgd = SGD(lr=LR, clip_norm=clip_norm)
        phase = phase_of(LineStep(name="a", n_epochs=1, max_steps=1, optimizers={"both": sgd}))
        state = entered(phase)
        before = [weight.clone() for weight in state.models["line"].parameters()]
        fitted(state, phase)
        after = state.models["line"].parameters()
        moved = [(new - old).flatten() for new, old in zip(after, before, strict=True)]
        return torch.cat(moved).norm().item() / LR

    assert change(None) == pytest.approx(math.sqrt(12), rel=1e-5)
    assert change(9.0) == pytest.approx(math.sqrt(12), rel=1e-5)
    assert change(0.5) == pytest.approx(0.5, rel=1e-5)


@dataclass(frozen=True)
class Course(Numbers):
    """Batches whose losses are others in each epoch."""

    epochs: tuple[tuple[float, ...], ...] = ((9.0, 2.0), (5.0, 3.0), (3.0, 2.0), (3.0, 3.0))

    def epoch(self, epoch, start=0, retry=0):
        yield from self.epochs[epoch][start:]


@pytest.mark.parametrize(
    ("window", "n_epochs", "end"),
    [
        (1, 1, "own 2 is below 2.6"),
        (2, 3, "own 2.5 is below 2.6"),
        (100, 4, "own never fell below 2.6: moving on"),
    ],
)
def test_a_step_ends_by_the_mean_of_its_metric_over_the_window(window, n_epochs, end):
    transition = Transition(
        mode="loss_threshold", metric="own", threshold=2.6, max_epochs=4, window=window
    )
    step = LineStep(name="a", n_epochs=2, optimizers={"both": SGD(lr=LR)}, transition=transition)
    phase = phase_of(step, Course())

    events = fitted(entered(phase), phase)

    assert sum(isinstance(event, EpochEnd) for event in events) == n_epochs
    (ended,) = [event for event in events if isinstance(event, PhaseEnd)]
    assert ended.reason == end


def test_a_step_says_what_is_frozen_how_much_it_takes_and_what_counts_as_diverged():
    step = LineStep(
        name="a",
        n_epochs=3,
        freeze=("line.0", "line.1"),
        unfreeze=("line.1",),
        optimizers={"both": SGD(lr=LR)},
        max_steps=1,
    )
    phase = phase_of(step, max_loss=7.0)
    state = entered(phase)
    frozen = state.models["line"][0].weight.clone()

    events = fitted(state, phase)

    assert sum(isinstance(event, BatchEnd) for event in events) == 3
    assert torch.equal(state.models["line"][0].weight, frozen)
    assert phase.trained_modules(state.models, "both") == [*state.models["line"]]
    assert phase.max_loss == 7.0


def steps_of(make, n_steps=7, decay=0.0):
    """Take steps with gradients of both signs and sizes; give the weights after each, float64."""
    weight = nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64))
    still = nn.Parameter(torch.ones(1, dtype=torch.float64))  # nothing depends on it
    optimizer = make([weight, still])
    stream = torch.Generator().manual_seed(1)
    gradients = torch.randn(n_steps, 5, dtype=torch.float64, generator=stream)
    places = []
    for gradient in gradients:
        optimizer.zero_grad()
        (weight * gradient).sum().backward()
        optimizer.step()
        places.append(weight.detach().clone())
    assert still.item() == 1
    return gradients, torch.stack(places)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lion_is_algorithm_2_of_its_paper(decay):
    """c = b1 m + (1 - b1) g; w -= lr (sign(c) + decay w); m = b2 m + (1 - b2) g."""
    lr, beta_1, beta_2 = 0.1, 0.7, 0.9
    chosen = Lion(lr=lr, betas=(beta_1, beta_2), weight_decay=decay)
    gradients, places = steps_of(chosen.make)

    weight, mean = torch.linspace(-1, 1, 5, dtype=torch.float64), torch.zeros(5).double()
    for gradient, place in zip(gradients, places, strict=True):
        update = torch.sign(beta_1 * mean + (1 - beta_1) * gradient)
        weight = weight - lr * (update + decay * weight)
        mean = beta_2 * mean + (1 - beta_2) * gradient
        torch.testing.assert_close(place, weight, rtol=1e-12, atol=1e-12)


def test_nesterov_s_momentum_is_torch_s():
    chosen = SGD(lr=0.1, momentum=0.9, nesterov=True)
    published = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)

    torch.testing.assert_close(steps_of(chosen.make)[1], steps_of(published)[1])


def test_an_optimizer_of_one_s_own_takes_its_options():
    chosen = OwnOptimizer(type="torch.optim.Adagrad", options={"lr": 0.1, "lr_decay": 0.5})
    published = partial(torch.optim.Adagrad, lr=0.1, lr_decay=0.5)

    assert steps_of(chosen.make)[1].equal(steps_of(published)[1])
    with pytest.raises(InputError, match=r"Adagrad does not take its options: .*'rate'"):
        OwnOptimizer(type="torch.optim.Adagrad", options={"rate": 1}).make([])


def rates_by_batch(scheduler, n_epochs=3):
    """Give the rate of every batch, two in each epoch, of SGD with momentum."""
    step = LineStep(
        name="a",
        n_epochs=n_epochs,
        optimizers={"both": SGD(lr=LR, momentum=0.5)},
        schedulers={"both": scheduler},
    )
    phase = phase_of(step)
    return rates_at(BatchStart, entered(phase), phase, "both")


@pytest.mark.parametrize(
    ("scheduler", "published"),
    [
        (OneCycleLR(), partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=LR, total_steps=6)),
        (
            ExponentialLR(gamma=0.5, interval="batch"),
            partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
        ),
        (
            CosineAnnealingLR(interval="batch"),
            partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=6),
        ),
        (
            OwnScheduler(
                type="torch.optim.lr_scheduler.PolynomialLR",
                options={"total_iters": 4},
                interval="batch",
            ),
            partial(torch.optim.lr_scheduler.PolynomialLR, total_iters=4),
        ),
    ],
)
def test_a_scheduler_may_step_after_every_batch(scheduler, published):
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR, momentum=0.5)
    theirs, expected = published(sgd), []
    for _ in range(6):
        expected.append(sgd.param_groups[0]["lr"])
        sgd.step()
        theirs.step()

    assert rates_by_batch(scheduler) == expected


def test_a_scheduler_of_one_s_own_may_follow_a_metric():
    plateau = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    own = OwnScheduler(type=plateau, options={"factor": 0.5, "patience": 1}, metric="valid_nll")
    step = LineStep(
        name="a",
        n_epochs=N_EPOCHS,
        optimizers={"both": SGD(lr=LR)},
        schedulers={"both": own},
    )
    course = iter(COURSE)
    validation = Validation(lambda models: {"valid_nll": next(course)})

    rates = rates_of(phase_of(step, validation=validation))

    assert rates == rates_of_torch("SGD", SCHEDULES["plateau"][1])


def test_a_step_ends_by_the_clock_at_an_epoch_s_end(monkeypatch):
    """Each reading of the clock is ten minutes later: an epoch of two batches takes half an hour.

    The epoch that is at hand when the time is over is finished.
    """
    clock = count(step=600.0)
    monkeypatch.setattr("jemtrack.train.lifecycle.time.perf_counter", lambda: next(clock))
    by_clock = Transition(mode="wall_clock", hours=0.9)
    step = LineStep(name="a", n_epochs=9, optimizers={"both": SGD(lr=LR)}, transition=by_clock)
    phase = phase_of(step)
    state = entered(phase)

    *_, ended = fitted(state, phase)

    assert (state.position.epoch, state.seconds, ended.reason) == (2, 3600.0, "0.9 hours are over")
    # The time that it has trained is kept with all else: after a kill it is not new.
    saved = state.state_dict(phase.objective)
    state.enter(phase)
    assert state.seconds == 0
    state.load_state_dict(saved, lambda: phase.objective)
    assert state.seconds == 3600


def test_a_step_that_has_time_left_ends_after_its_epochs():
    by_clock = Transition(mode="wall_clock", hours=5.0, max_epochs=3)
    step = LineStep(name="a", n_epochs=2, optimizers={"both": SGD(lr=LR)}, transition=by_clock)
    phase = phase_of(step)

    *_, ended = fitted(entered(phase), phase)

    assert ended.reason == "3 epochs are done"
