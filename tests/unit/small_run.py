"""A small real run for tests of callbacks: two phases of four epochs of two steps.

Epoch n of the run ends with step 2n; the second phase begins after step 8.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jemtrack.events.events import BatchEnd, EpochEnd, Event
from jemtrack.events.handlers import Callback, Recorder
from jemtrack.shared.random_streams import generator
from jemtrack.shared.serialization import to_bytes
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.optimizers import Adam
from jemtrack.train.phase import Phase, Validation
from jemtrack.train.recipe import Divergence, Step
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState

PHASES = ("first", "second")
N_EPOCHS, N_BATCHES = 4, 2
N_STEPS = len(PHASES) * N_EPOCHS * N_BATCHES
STEPS = range(1, N_STEPS + 1)


def with_step(phase: Phase, **changed) -> Phase:
    """Give the phase with another step, which has these fields."""
    return replace(phase, step=replace(phase.step, **changed))


@dataclass(frozen=True)
class Points:
    """Batches of eight points; their place and the returns decide them."""

    def __len__(self) -> int:
        return N_BATCHES

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Tensor]:
        for batch in range(start, N_BATCHES):
            yield torch.randn(8, 3, generator=generator(1, "points", epoch, batch, retry))


class Loss:
    """The mean square; the steps in `bad`, counted by calls, give what stands there, once."""

    def __init__(self, bad: dict[int, float] | None = None) -> None:
        self.bad = dict(bad or {})
        self.calls = 0

    def __call__(self, models, batch) -> dict[str, Tensor]:
        self.calls += 1
        loss = (models["net"](batch) - batch[:, :2].tanh()).square().mean()
        return {"loss": loss * self.bad.pop(self.calls, 1.0)}


class Record(Recorder):
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.n_closed = 0

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.n_closed += 1

    def of(self, *kinds: type[Event]) -> list:
        return [event for event in self.events if isinstance(event, kinds)]


class Seen(Recorder):
    """Keeps the metrics of batches, also in checkpoints."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchEnd) and event.metrics:
            self.metrics.append({**event.metrics})

    def state_dict(self) -> dict[str, Any]:
        return {"metrics": self.metrics}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.metrics = state["metrics"]


class PowerCutError(Exception):
    pass


class BreakOff(Callback):
    """Breaks the run off after the step `step`; never, where it is 0."""

    def __init__(self, step: int = 0) -> None:
        self.step = step

    def __call__(self, event: Event, state: TrainState) -> None:
        if isinstance(event, BatchEnd) and event.step == self.step:
            raise PowerCutError


def save(path: Path, models) -> None:
    save_file(models["net"].state_dict(), path)


def make_run(
    folder: Path,
    *callbacks: Callback,
    values: Sequence[float | None] = (),
    bad: dict[int, float] | None = None,
    frozen: tuple[tuple[str, ...], ...] = ((), ()),
) -> Run:
    """Make a run with checkpoints after every third step.

    `values` are the validation's, epoch by epoch; None: the epoch has none. `bad` are factors of
    the loss in single steps, and such a step is gone back from.
    """
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2))
    state = TrainState({"net": net})

    def measure(models) -> dict[str, float]:
        value = values[state.epochs]
        return {} if value is None else {"valid_loss": value}

    loss = Loss(bad)
    phases = [
        Phase(
            Step(
                name=name,
                n_epochs=N_EPOCHS,
                optimizers={"net": Adam(lr=0.05)},
                freeze=frozen[number],
            ),
            loss,
            Points(),
            Validation(measure) if values else None,
        )
        for number, name in enumerate(PHASES)
    ]
    return Run(
        "x",
        {},
        state,
        phases,
        [Record()],
        callbacks,
        Checkpoints(folder / "checkpoints", every_seconds=1e9, every_steps=3),
        Divergence(action="retry"),
        save,
        folder / "files",
    )


def resumed(folder: Path, step: int, make) -> Run:
    """Break the run that `make(folder, break_off)` makes off after a step; train it to its end."""
    broken = make(folder, BreakOff(step))
    with pytest.raises(PowerCutError):
        broken.train()
    run = make(folder, BreakOff())
    if step > 3:  # there is a checkpoint, which gives the global stream back
        torch.rand(17)
    run.train()
    return run


def assert_same(run: Run, whole: Run) -> None:
    """Hold two runs that are over against one another, to the last bit."""
    for one, other in (
        (run.state.models, whole.state.models),
        (run.state.served, whole.state.served),
    ):
        ours, theirs = one["net"].state_dict(), other["net"].state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # repr, for NaN is to be as NaN.
    assert repr(run.state.latest) == repr(whole.state.latest)
    assert run.state.position == whole.state.position
    assert run.trackers[0].events[-1] == whole.trackers[0].events[-1]
    for one, other in zip(run.callbacks, whole.callbacks, strict=True):
        assert to_bytes(one.state_dict()) == to_bytes(other.state_dict())
    assert files(run) == files(whole)


def files(run: Run) -> dict[str, bytes]:
    """Give the content of the files in the run's folder."""
    return {
        path.name: path.read_bytes() for path in sorted(run.folder.rglob("*")) if path.is_file()
    }


def holds(path: Path, model: nn.Module) -> bool:
    """Say whether the file has the model's weights."""
    found, wanted = load_file(path), model.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)


def epochs(run: Run) -> list[int]:
    """Give the epochs of the run that ended."""
    return [event.epoch for event in run.trackers[0].of(EpochEnd)]


NAN = math.nan
