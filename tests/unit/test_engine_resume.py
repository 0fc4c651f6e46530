"""A run that was broken off anywhere ends as the run that was not, bit for bit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jemtrack.events.events import BatchEnd, Event, RunEnd, RunStart, Status
from jemtrack.events.handlers import Callback, Recorder
from jemtrack.shared.metrics import declare_metric
from jemtrack.shared.random_streams import generator
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.optimizers import (
    SGD,
    Adam,
    AdamW,
    CosineAnnealingLR,
    ExponentialLR,
    Lion,
    OneCycleLR,
    ReduceLROnPlateau,
    RMSprop,
    StepLR,
)
from jemtrack.train.phase import Phase
from jemtrack.train.recipe import Step, Transition
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState

N_BATCHES = 4


@dataclass(frozen=True)
class Points:
    """Batches of eight points whose noise their place alone decides."""

    def __len__(self) -> int:
        return N_BATCHES

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Tensor]:
        for batch in range(start, N_BATCHES):
            yield torch.randn(8, 3, generator=generator(1, "points", epoch, batch))


class Momentum:
    """An objective with a state: each loss leans on a running mean of the outputs."""

    def __init__(self) -> None:
        self.mean = torch.zeros(2)

    def __call__(self, models, batch) -> dict[str, Tensor]:
        outputs = models["net"](batch)
        self.mean = 0.9 * self.mean + 0.1 * outputs.detach().mean(0)
        return {"loss": (outputs - batch[:, :2] - self.mean).square().mean()}

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state) -> None:
        self.mean = state["mean"]


class Averages(Callback):
    """A callback with a state: an exponential mean of the first weight."""

    def _post_init_(self) -> None:
        self.mean = torch.zeros(5, 3)

    def __call__(self, event: Event, state: TrainState) -> None:
        if isinstance(event, BatchEnd) and event.status == Status.SUCCESS:
            self.mean = 0.5 * self.mean + 0.5 * state.models["net"][0].weight.detach()

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state) -> None:
        self.mean = state["mean"]


class Record(Recorder):
    """Keeps the steps as a file would: a checkpoint knows how long it was."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


class BreakOff(Callback):
    """Acts after the step `step` of the run."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step = step
        self.act = act

    def __call__(self, event: Event, state: TrainState) -> None:
        if isinstance(event, BatchEnd) and event.step == self.step:
            self.act()


def power_cut() -> None:
    raise MemoryError("pulled the plug")


OPTIMIZERS = {
    "Adam": Adam(lr=0.01),
    "AdamW": AdamW(lr=0.01, weight_decay=0.1),
    "SGD": SGD(lr=0.01, momentum=0.9, nesterov=True),
    "RMSprop": RMSprop(lr=0.01, momentum=0.5, centered=True),
    "Lion": Lion(lr=0.01, weight_decay=0.1),
}
SCHEDULES = {
    "none": None,
    "CosineAnnealingLR": CosineAnnealingLR(t_max=3),
    "StepLR": StepLR(step_size=2),
    "StepLR by batch": StepLR(step_size=2, gamma=0.5, interval="batch"),
    "ExponentialLR": ExponentialLR(gamma=0.8),
    "OneCycleLR": OneCycleLR(),
    "ReduceLROnPlateau": ReduceLROnPlateau(patience=0),
}


def make_run(folder: Path | None, optimizer="Adam", schedule="none", callbacks=()) -> Run:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 2))
    chosen = {
        "optimizers": {"net": OPTIMIZERS[optimizer]},
        "schedulers": {"net": SCHEDULES[schedule]} if SCHEDULES[schedule] else {},
    }
    below = Transition(mode="loss_threshold", metric="loss", threshold=-1.0)
    steps = [
        Step(name="warm_up", n_epochs=2, freeze=("net.1", "net.3"), **chosen),
        Step(name="rest", n_epochs=3, max_steps=3, transition=below, **chosen),
    ]
    objective = Momentum()
    phases = [Phase(step, objective, Points()) for step in steps]
    checkpoints = Checkpoints(folder, every_seconds=1e9, every_steps=3) if folder else None
    state = TrainState({"net": net})
    return Run("x", {}, state, phases, [Record()], [Averages(), *callbacks], checkpoints)


N_STEPS = 2 * N_BATCHES + 3 * 3


def steps(run: Run) -> list[int]:
    return [event.step for event in run.trackers[0].events if isinstance(event, BatchEnd)]


def assert_same(run: Run, whole: Run) -> None:
    ours, theirs = run.state.models["net"].state_dict(), whole.state.models["net"].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(run.callbacks[0].mean, whole.callbacks[0].mean)
    assert run.state.latest == whole.state.latest
    assert (
        run.state.optimizers["net"].param_groups[0]["lr"]
        == (whole.state.optimizers["net"].param_groups[0]["lr"])
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_any_optimizer_and_scheduler(tmp_path, optimizer, schedule):
    whole = make_run(None, optimizer, schedule)
    whole.train()
    broken = make_run(tmp_path, optimizer, schedule, [BreakOff(13, power_cut)])
    with pytest.raises(MemoryError):
        broken.train()

    run = make_run(tmp_path, optimizer, schedule, [BreakOff(-1, power_cut)])
    torch.rand(17)
    run.train()

    assert_same(run, whole)


@pytest.mark.parametrize("at", range(1, N_STEPS + 1))
def test_any_step(tmp_path, at):
    whole = make_run(None)
    whole.train()
    broken = make_run(tmp_path, callbacks=[BreakOff(at, power_cut)])
    with pytest.raises(MemoryError):
        broken.train()

    run = make_run(tmp_path, callbacks=[BreakOff(-1, power_cut)])
    if at > 3:  # there is a checkpoint, which gives the global stream back
        torch.rand(17)
    run.train()

    assert_same(run, whole)
    # The checkpoint of step `at` is written after the callbacks: it never came to be.
    resumed_after = (at - 1) // 3 * 3
    assert steps(run) == list(range(resumed_after + 1, N_STEPS + 1))


def test_a_resumed_run_says_where_it_goes_on_and_what_it_skips(tmp_path, caplog):
    broken = make_run(tmp_path, callbacks=[BreakOff(11, power_cut)])
    with pytest.raises(MemoryError):
        broken.train()

    run = make_run(tmp_path, callbacks=[BreakOff(-1, power_cut)])
    with caplog.at_level("INFO", logger="jemtrack"):
        run.train()

    assert "x resumes at phase rest (2/2), epoch 1, batch 2; done before: warm_up" in caplog.text
    start, end = run.trackers[0].events[0], run.trackers[0].events[-1]
    assert isinstance(start, RunStart)
    assert start.run_id == broken.run_id
    assert (start.step, start.epoch) == (9, 2)
    assert isinstance(end, RunEnd)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_finished_run_leaves_nothing_to_train(tmp_path, stopped):
    def finish(run: Run) -> Run:
        if stopped:
            run.callbacks[1].act = lambda: setattr(run.state, "stop", "enough")
        run.train()
        return run

    whole = finish(make_run(tmp_path, callbacks=[BreakOff(6, list)]))
    again = finish(make_run(tmp_path, callbacks=[BreakOff(-1, power_cut)]))

    assert steps(whole) == list(range(1, (8 if stopped else N_STEPS) + 1))
    assert steps(again) == []
    assert again.trackers[0].events[-1] == whole.trackers[0].events[-1]
    assert_same(again, whole)


def test_a_threshold_ends_a_phase_and_survives_a_break(tmp_path):
    def phases(run: Run) -> Run:
        first = run.phases[0]
        below = Transition(mode="loss_threshold", metric="loss", threshold=1e9, window=2)
        step = replace(first.step, transition=below)
        run.phases = [replace(first, step=step), run.phases[1]]
        return run

    whole = phases(make_run(None))
    whole.train()
    assert len(steps(whole)) == N_STEPS - N_BATCHES  # one epoch was enough

    with pytest.raises(MemoryError):
        phases(make_run(tmp_path, callbacks=[BreakOff(4, power_cut)])).train()
    run = phases(make_run(tmp_path, callbacks=[BreakOff(-1, power_cut)]))
    run.train()
    assert_same(run, whole)


@dataclass(frozen=True)
class Placed:
    """A batch that knows its step, as any family's may."""

    points: Tensor
    step: int = -1


class PlacedPoints(Points):
    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Placed]:
        return map(Placed, super().epoch(epoch, start, retry))


def warmed_up(models, batch: Placed) -> dict[str, Tensor]:
    """A reconstruction, and a penalty whose weight rises over the phase's first ten steps."""
    outputs = models["net"](batch.points)
    weight = torch.tensor(min(1.0, batch.step / 10))
    return {
        "loss": (outputs - batch.points[:, :2]).square().mean() + weight * outputs.square().mean(),
        "kl_weight": weight,
    }


@pytest.mark.parametrize("at", [2, 7, N_STEPS - 1])
def test_what_warms_up_by_the_step_of_a_batch(tmp_path, at):
    declare_metric("kl_weight")

    def make(folder: Path | None, cut: int) -> Run:
        run = make_run(folder, callbacks=[BreakOff(cut, power_cut)])
        run.phases = [
            replace(phase, objective=warmed_up, batches=PlacedPoints()) for phase in run.phases
        ]
        return run

    whole = make(None, -1)
    whole.train()
    broken = make(tmp_path, at)
    with pytest.raises(MemoryError):
        broken.train()
    run = make(tmp_path, -1)
    run.train()

    assert_same(run, whole)
    # The steps are those of the phase, through its epochs, of which a quick look has fewer.
    sizes = [phase.n_epochs * phase.n_batches for phase in whole.phases]
    weights = [min(1.0, step / 10) for size in sizes for step in range(size)]
    events = [event for event in whole.trackers[0].events if isinstance(event, BatchEnd)]
    assert [event.metrics["kl_weight"] for event in events] == pytest.approx(weights)
