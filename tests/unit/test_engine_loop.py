import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from fitting import fitted
from small_run import with_step
from torch import Tensor, nn

from jemtrack.errors import InputError, TrainingDivergedError
from jemtrack.events.events import (
    BatchEnd,
    BatchStart,
    EpochEnd,
    EpochStart,
    PhaseEnd,
    PhaseStart,
    Position,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.events.handlers import EventHandler, Recorder, Tracker
from jemtrack.shared.metrics import declare_metric
from jemtrack.train.optimizers import SGD
from jemtrack.train.phase import Objective, Phase, Validation
from jemtrack.train.recipe import Step
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState


@dataclass(frozen=True)
class Numbers:
    """Batches of one number: its place in the training."""

    n_batches: int = 3

    def __len__(self) -> int:
        return self.n_batches

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Tensor]:
        for batch in range(start, self.n_batches):
            yield torch.tensor([[1.0 + epoch * self.n_batches + batch]])


declare_metric("half")


def squares(models, batch) -> dict[str, Tensor]:
    loss = (models["line"](batch) - 2 * batch).square().mean()
    return {"loss": loss, "half": loss.detach() / 2}


# Batches of one item: batch norm would refuse them, so it is frozen as the tests need it.
STEP = Step(name="train", n_epochs=2, optimizers={"line": SGD(lr=0.001)}, freeze=("line.1",))
PHASE = Phase(STEP, squares, Numbers())


def make_state(phase: Phase = PHASE) -> TrainState:
    torch.manual_seed(0)
    line = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    line.eval()
    state = TrainState({"line": line})
    state.enter(phase)
    return state


def train(objective: Objective, *trackers: EventHandler, state: TrainState | None = None):
    phase = replace(PHASE, objective=objective)
    return Run("x", {"lr": 1}, state or make_state(), [phase], trackers).train()


class Record(Recorder):
    def __init__(self) -> None:
        self.events = []
        self.closed = 0

    def __call__(self, event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1


def test_events_come_in_order_with_their_positions():
    events = fitted(make_state(), PHASE)

    batches = [BatchStart, BatchEnd] * 3
    assert [type(event) for event in events] == [
        PhaseStart, EpochStart, *batches, EpochEnd, EpochStart, *batches, EpochEnd, PhaseEnd,
    ]  # fmt: skip
    assert [event.position for event in events if isinstance(event, BatchEnd)] == [
        Position(0, epoch, batch) for epoch in (0, 1) for batch in (1, 2, 3)
    ]
    assert [event.position.epoch for event in events if isinstance(event, EpochEnd)] == [1, 2]


def test_epoch_metrics_are_the_means_of_its_own_batches():
    events = fitted(make_state(), PHASE)

    second = events[events.index(next(e for e in events if isinstance(e, EpochEnd))) + 1 :]
    losses = [event.metrics["loss"] for event in second if isinstance(event, BatchEnd)]
    (end,) = [event for event in second if isinstance(event, EpochEnd)]
    assert end.metrics["train_loss"] == pytest.approx(sum(losses) / 3)
    assert end.metrics["train_half"] == pytest.approx(sum(losses) / 6)


def test_weights_equal_those_of_the_barest_loop():
    """One epoch by the engine is one epoch written out by hand."""
    ours, bare = make_state(), make_state()
    fitted(ours, with_step(PHASE, n_epochs=1))

    line, optimizer = bare.models["line"], bare.optimizers["line"]
    line[1].requires_grad_(False)
    for batch in Numbers().epoch(0):
        optimizer.zero_grad()
        squares(bare.models, batch)["loss"].backward()
        optimizer.step()

    for mine, theirs in zip(
        ours.models["line"].state_dict().values(), line.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_training_goes_on_from_any_position():
    """Two halves, cut within an epoch, are bit for bit the whole."""
    whole, cut = make_state(), make_state()
    fitted(whole, PHASE)

    there = Position(0, 1, 2)
    fitted(cut, PHASE, cut=lambda event, state: state.position == there)
    assert cut.position == there
    rest = fitted(cut, PHASE)

    assert [event.position for event in rest if isinstance(event, BatchEnd)] == [Position(0, 1, 3)]
    for mine, theirs in zip(
        cut.models["line"].parameters(), whole.models["line"].parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_frozen_modules_keep_weights_statistics_and_mode():
    faster = with_step(PHASE, optimizers={"line": SGD(lr=0.01)})
    state = make_state(faster)
    before = {name: value.clone() for name, value in state.models["line"][1].state_dict().items()}
    first = state.models["line"][0].weight.clone()

    fitted(state, faster)

    after = state.models["line"][1].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(first, state.models["line"][0].weight)
    assert not state.models["line"][1].training
    assert state.models["line"][0].training


def test_freezing_does_not_leak_into_the_next_phase():
    state = make_state(with_step(PHASE, freeze=("line",)))
    assert not any(weight.requires_grad for weight in state.models["line"].parameters())

    state.enter(with_step(PHASE, freeze=()))

    assert all(weight.requires_grad for weight in state.models["line"].parameters())


@pytest.mark.parametrize(
    ("every", "n_epochs", "expected"), [(1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (9, 2, [2])]
)
def test_validation_comes_when_due_and_after_the_last_epoch(every, n_epochs, expected):
    validation = Validation(lambda models: {"valid_loss": 0.5}, every)
    phase = replace(with_step(PHASE, n_epochs=n_epochs), validation=validation)

    ends = [event for event in fitted(make_state(), phase) if isinstance(event, EpochEnd)]

    assert [end.position.epoch for end in ends if "valid_loss" in end.metrics] == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_never_reaches_the_weights(bad):
    state = make_state()

    def diverging(models, batch):
        losses = squares(models, batch)
        return losses if batch < 3 else {**losses, "loss": losses["loss"] * bad}

    record = Record()
    with pytest.raises(TrainingDivergedError, match="epoch 1, batch 3"):
        train(diverging, record, state=state)

    assert all(weight.isfinite().all() for weight in state.models["line"].parameters())
    assert state.position == Position(0, 0, 2)
    assert record.events[-1] == RunEnd(Status.FAILED, {})


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, Status.ABORTED), (RuntimeError, Status.FAILED)]
)
def test_every_way_out_announces_each_end_once_and_raises(error, status):
    def failing(models, batch):
        raise error

    record = Record()
    with pytest.raises(error):
        train(failing, record)

    assert [type(event) for event in record.events] == [
        RunStart, PhaseStart, EpochStart, BatchStart, BatchEnd, EpochEnd, PhaseEnd, RunEnd,
    ]  # fmt: skip
    assert {event.status for event in record.events[4:]} == {status}
    assert record.closed == 1


def test_a_run_announces_start_and_end_and_gives_the_last_metrics():
    record = Record()

    metrics = train(squares, record)

    start = record.events[0]
    assert isinstance(start, RunStart)
    assert (start.name, start.parameters, start.step) == ("x", {"lr": 1}, 0)
    assert record.events[-1] == RunEnd(Status.SUCCESS, metrics)
    assert metrics == [e.metrics for e in record.events if isinstance(e, EpochEnd)][-1]
    assert record.closed == 1


class Broken(Tracker):
    def __call__(self, event) -> None:
        raise OSError("no such server")


def test_a_listener_that_fails_is_warned_of_once_and_training_goes_on(caplog):
    record = Record()

    train(squares, Broken(), record)

    assert [message for message in caplog.messages if "Broken" in message] == [
        "Broken gets nothing of the run after step 0: OSError: no such server; when the training "
        "has ended, `jemtrack replay` sends it the whole record"
    ]
    assert record.events[-1].status == Status.SUCCESS


def test_a_metric_that_nobody_declared_is_refused():
    def misnamed(models, batch):
        return {**squares(models, batch), "lsos": torch.tensor(0.0)}

    with pytest.raises(InputError, match="no metric is called 'lsos'"):
        train(misnamed)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights():
    """The square root's slope at 0 is infinite, though its value is finite."""

    def cusp(models, batch):
        return {"loss": (models["line"](batch) * 0).abs().sqrt().mean()}

    state = make_state()
    with pytest.raises(TrainingDivergedError, match="the gradient is not finite at epoch 1"):
        train(cusp, state=state)

    assert all(weight.isfinite().all() for weight in state.models["line"].parameters())
