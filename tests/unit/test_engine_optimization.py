"""What a recipe chooses is what torch does."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from jemtrack.parameters import parameters
from jemtrack.train.events import BatchEnd, EpochEnd, EpochStart, PhaseEnd
from jemtrack.train.loop import fit
from jemtrack.train.metrics import declare_metric
from jemtrack.train.optimizers import (
    OPTIMIZERS,
    SGD,
    Adam,
    CosineAnnealingLR,
    ExponentialLR,
    ReduceLROnPlateau,
    StepLR,
    learning_rates,
)
from jemtrack.train.phase import Phase, Validation, phases
from jemtrack.train.recipe import Divergence, Family, Recipe, Step, Transition
from jemtrack.train.state import TrainState

LR, N_EPOCHS = 0.01, 7
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
class Shape:
    """No options."""


FAMILY = Family(
    name="line",
    models=("line",),
    optimizers={"both": ("line.0", "line.1")},
    usual_optimizer=Adam(lr=1.0),
    shape=Shape,
)


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
    recipe = Recipe(steps=(step,), **own)
    batches = batches or Numbers()
    (phase,) = phases(recipe, FAMILY, [objective], lambda *_: batches, validation)
    return phase


def entered(phase: Phase) -> TrainState:
    torch.manual_seed(0)
    line = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state = TrainState({"line": line})
    state.enter(phase)
    return state


def rates_of(phase: Phase) -> list[float]:
    state = entered(phase)
    return [
        learning_rates(state.optimizers)["both"]
        for event in fit(state, phase)
        if isinstance(event, EpochStart)
    ]


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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rates_are_torch_s_own(optimizer, schedule):
    chosen, published = SCHEDULES[schedule]
    step = Step(
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
    step = Step(
        name="a",
        n_epochs=N_EPOCHS,
        optimizers={"both": SGD(lr=LR)},
        schedulers={"both": ReduceLROnPlateau(metric="valid_nll", factor=0.5, patience=0)},
    )
    validation = Validation(lambda models: {"valid_nll": 1.0}, every=3)

    # Measured after the epochs 3, 6 and 7, of which 6 is the first that is no better.
    assert rates_of(phase_of(step, validation=validation)) == [LR] * 6 + [LR / 2]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_has_the_options_that_were_chosen(name):
    choice = OPTIMIZERS[name](lr=LR, weight_decay=0.25, clip_norm=2.0)
    phase = phase_of(Step(name="a", n_epochs=1, optimizers={"both": choice}))

    (optimizer,) = entered(phase).optimizers.values()

    assert isinstance(optimizer, getattr(torch.optim, name))
    assert type(optimizer).__name__ == name
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (LR, 0.25)
    assert phase.clip_norms == {"both": 2.0}


def test_a_cosine_s_least_rate_is_a_share_of_the_rate_after_a_divergence():
    step = Step(
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
        phase = phase_of(Step(name="a", n_epochs=1, max_steps=1, optimizers={"both": sgd}))
        state = entered(phase)
        before = [weight.clone() for weight in state.models["line"].parameters()]
        list(fit(state, phase))
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
    step = Step(name="a", n_epochs=2, optimizers={"both": SGD(lr=LR)}, transition=transition)
    phase = phase_of(step, Course())

    events = list(fit(entered(phase), phase))

    assert sum(isinstance(event, EpochEnd) for event in events) == n_epochs
    (ended,) = [event for event in events if isinstance(event, PhaseEnd)]
    assert ended.reason == end


def test_a_step_says_what_is_frozen_how_much_it_takes_and_what_counts_as_diverged():
    step = Step(
        name="a",
        n_epochs=3,
        freeze=("line.0", "line.1"),
        unfreeze=("line.1",),
        optimizers={"both": SGD(lr=LR)},
        max_steps=1,
    )
    phase = phase_of(step, divergence=Divergence(max_loss=7.0))
    state = entered(phase)
    frozen = state.models["line"][0].weight.clone()

    events = list(fit(state, phase))

    assert sum(isinstance(event, BatchEnd) for event in events) == 3
    assert torch.equal(state.models["line"][0].weight, frozen)
    assert phase.trained_modules(state.models, "both") == [*state.models["line"]]
    assert phase.max_loss == 7.0
