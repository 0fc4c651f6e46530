import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from jemtrack.engine.events import (
    BatchEnd,
    EpochEnd,
    EpochStart,
    PhaseEnd,
    PhaseStart,
    Position,
    RunEnd,
    RunStart,
)
from jemtrack.engine.listeners import Listener
from jemtrack.engine.loop import fit
from jemtrack.engine.phase import Phase, Validation
from jemtrack.engine.run import run
from jemtrack.engine.state import TrainState
from jemtrack.errors import TrainingDivergedError


@dataclass(frozen=True)
class Numbers:
    """Batches of one number: its place in the training."""

    n_batches: int = 3

    def __len__(self) -> int:
        return self.n_batches

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        for batch in range(start, self.n_batches):
            yield torch.tensor([[1.0 + epoch * self.n_batches + batch]])


def squares(models, batch) -> dict[str, Tensor]:
    loss = (models["line"](batch) - 2 * batch).square().mean()
    return {"loss": loss, "half": loss.detach() / 2}


def make_state(lr: float = 0.001) -> TrainState:
    torch.manual_seed(0)
    line = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    line.eval()
    return TrainState({"line": line}, {"line": torch.optim.SGD(line.parameters(), lr=lr)})


# Batches of one item: batch norm would refuse them, so it is frozen as the tests need it.
PHASE = Phase("train", squares, Numbers(), n_epochs=2, frozen=("line.1",))


class Record(Listener):
    def __init__(self) -> None:
        self.events = []
        self.closed = 0

    def __call__(self, event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1


def test_events_come_in_order_with_their_positions():
    events = list(fit(make_state(), PHASE))

    batches = [BatchEnd] * 3
    assert [type(event) for event in events] == [
        PhaseStart, EpochStart, *batches, EpochEnd, EpochStart, *batches, EpochEnd, PhaseEnd,
    ]  # fmt: skip
    assert [event.position for event in events if isinstance(event, BatchEnd)] == [
        Position(0, epoch, batch) for epoch in (0, 1) for batch in (1, 2, 3)
    ]
    assert [event.position.epoch for event in events if isinstance(event, EpochEnd)] == [1, 2]


def test_epoch_metrics_are_the_means_of_its_own_batches():
    events = list(fit(make_state(), PHASE))

    second = events[events.index(next(e for e in events if isinstance(e, EpochEnd))) + 1 :]
    losses = [event.metrics["loss"] for event in second if isinstance(event, BatchEnd)]
    (end,) = [event for event in second if isinstance(event, EpochEnd)]
    assert end.metrics["train_loss"] == pytest.approx(sum(losses) / 3)
    assert end.metrics["train_half"] == pytest.approx(sum(losses) / 6)


def test_weights_equal_those_of_the_barest_loop():
    """One epoch by the engine is one epoch written out by hand."""
    ours, bare = make_state(), make_state()
    list(fit(ours, replace(PHASE, n_epochs=1)))

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
    list(fit(whole, PHASE))

    events = fit(cut, PHASE)
    while cut.position != Position(0, 1, 2):
        next(events)
    events.close()
    rest = list(fit(cut, PHASE))

    assert [event.position for event in rest if isinstance(event, BatchEnd)] == [Position(0, 1, 3)]
    for mine, theirs in zip(
        cut.models["line"].parameters(), whole.models["line"].parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_frozen_modules_keep_weights_statistics_and_mode():
    state = make_state(lr=0.1)
    before = {name: value.clone() for name, value in state.models["line"][1].state_dict().items()}
    first = state.models["line"][0].weight.clone()

    list(fit(state, PHASE))

    after = state.models["line"][1].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(first, state.models["line"][0].weight)
    assert not state.models["line"][1].training
    assert state.models["line"][0].training


def test_freezing_does_not_leak_into_the_next_phase():
    state = make_state()
    list(fit(state, replace(PHASE, frozen=("line",), n_epochs=0)))
    assert not any(weight.requires_grad for weight in state.models["line"].parameters())

    list(fit(state, replace(PHASE, frozen=(), n_epochs=0)))

    assert all(weight.requires_grad for weight in state.models["line"].parameters())


@pytest.mark.parametrize(
    ("every", "n_epochs", "expected"), [(1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (9, 2, [2])]
)
def test_validation_comes_when_due_and_after_the_last_epoch(every, n_epochs, expected):
    validation = Validation(lambda models: {"valid_loss": 0.5}, every)
    phase = replace(PHASE, n_epochs=n_epochs, validation=validation)

    ends = [event for event in fit(make_state(), phase) if isinstance(event, EpochEnd)]

    assert [end.position.epoch for end in ends if "valid_loss" in end.metrics] == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_never_reaches_the_weights(bad):
    state = make_state()

    def diverging(models, batch):
        losses = squares(models, batch)
        return losses if batch < 3 else {**losses, "loss": losses["loss"] * bad}

    record = Record()
    with pytest.raises(TrainingDivergedError, match="epoch 1, batch 3"):
        run(RunStart("x", {}), state, replace(PHASE, objective=diverging), [record])

    assert all(weight.isfinite().all() for weight in state.models["line"].parameters())
    assert state.position == Position(0, 0, 2)
    assert record.events[-1] == RunEnd("failed", {})


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_every_way_out_announces_the_end_once_and_raises(error):
    def failing(models, batch):
        raise error

    record = Record()
    with pytest.raises(error):
        run(RunStart("x", {}), make_state(), replace(PHASE, objective=failing), [record])

    ends = [event for event in record.events if isinstance(event, RunEnd)]
    assert [end.status for end in ends] == ["failed"]
    assert record.closed == 1


def test_a_run_announces_start_and_end_and_gives_the_last_metrics():
    record = Record()

    metrics = run(RunStart("x", {"lr": 1}), make_state(), PHASE, [record])

    assert record.events[0] == RunStart("x", {"lr": 1})
    assert record.events[-1] == RunEnd("success", metrics)
    assert metrics == [e.metrics for e in record.events if isinstance(e, EpochEnd)][-1]
    assert record.closed == 1
