"""A small run as the events that a tracker is told, and what a tracker is to show of them.

Two phases of two epochs of three batches: epoch 1 ends with step 3, the second phase begins
after step 6, the run ends with step 12.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jemtrack.events.events import (
    BatchEnd,
    BatchStart,
    Diverged,
    EpochEnd,
    EpochStart,
    Event,
    Measured,
    PhaseEnd,
    PhaseStart,
    Position,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.events.handlers import Tracker
from jemtrack.record.jsonl import Record

PHASES = ("warm-up", "joint")
N_EPOCHS, N_BATCHES = 2, 3
N_STEPS = len(PHASES) * N_EPOCHS * N_BATCHES
KEPT, LOST = 5, 7  # a checkpoint is made after one step, the training killed after the other


class Norm(Enum):
    BATCH = "batch"


@dataclass(frozen=True)
class Training:
    lr: float = 0.1
    norm: Norm = Norm.BATCH
    load_path: str | None = None
    folder: Path = Path("runs")


PARAMETERS = {"params": Training(), "losses": [{"weight": 0.25}], "seed": 7, "text": "x" * 7000}
FLAT = {
    "params._cls": "tracked_run.Training",
    "params.lr": 0.1,
    "params.norm": "batch",
    "params.load_path": None,
    "params.folder": "runs",
    "losses": '[{"weight": 0.25}]',
    "seed": 7,
    "text": "x" * 7000,
}


def position(step: int) -> Position:
    """Say where a training stands whose `step` batches are done, the last epoch's end told."""
    phase, within = divmod(step, N_EPOCHS * N_BATCHES)
    return Position(phase, *divmod(within, N_BATCHES))


def start(step: int = 0, session: str = "session-1") -> RunStart:
    return RunStart(
        "test/Trainer", PARAMETERS, "run-1", session, position(step), step // N_BATCHES, step
    )


def steps(first: int, last: int, scale: float = 1.0) -> Iterator[Event]:
    """Tell the steps from `first` to `last`, with the starts and ends around them."""
    for step in range(first, last + 1):
        before = position(step - 1)
        if step == first or before == Position(before.phase):
            yield PhaseStart(before, PHASES[before.phase], len(PHASES), N_EPOCHS, N_BATCHES)
        if step == first or before.batch == 0:
            yield EpochStart(before)
        if before.batch == 0:
            yield Measured({"learning_rate.network": 0.1 * scale / step}, step - 1)
        yield BatchStart(before)
        batch = Position(before.phase, before.epoch, before.batch + 1)
        losses = {"loss": scale / 3 / step, "accuracy": step / 13}
        yield BatchEnd(batch, {**losses, "gradient_norm.network": scale / step}, step, 0.25)
        if batch.batch == N_BATCHES:
            yield from _epoch_end(step, Position(before.phase, before.epoch + 1), scale)


def _epoch_end(step: int, place: Position, scale: float) -> Iterator[Event]:
    epoch = step // N_BATCHES
    metrics = {"train_loss": scale / 7 / epoch}
    if epoch % 2 == 0:
        # A validation that fails to give a number is to be seen, not lost.
        metrics |= {"valid_nll": scale * math.pi / epoch, "valid_loss": math.nan}
    yield EpochEnd(place, metrics, epoch, step)
    yield Measured({"gradient_norm": scale * math.e / epoch}, step)
    if place.epoch == N_EPOCHS:
        yield PhaseEnd(place, PHASES[place.phase], "2 epochs are done")


def end(status: Status = Status.SUCCESS) -> RunEnd:
    return RunEnd(status, {"train_loss": 1 / 28, "valid_nll": math.pi / 4})


def whole_run() -> list[Event]:
    return [start(), *steps(1, N_STEPS), end()]


def broken_off(last: int = 4) -> list[Event]:
    """A run that an exception ends in the batch after `last`."""
    after = position(last)
    return [
        start(),
        *steps(1, last),
        BatchStart(after),
        BatchEnd(after, {}, last, status=Status.FAILED),
        EpochEnd(after, {}, last // N_BATCHES, last, Status.FAILED),
        PhaseEnd(after, PHASES[after.phase], "ValueError: no", Status.FAILED),
        RunEnd(Status.FAILED, {"train_loss": 1.0}),
    ]


def diverged(at: int, back_to: int) -> Diverged:
    return Diverged(
        position(at), position(back_to), back_to // N_BATCHES, back_to, {"loss": math.inf}, 1, 0.5
    )


def diverged_run() -> list[Event]:
    """A run that goes back over an epoch's and a phase's end, and takes another way."""
    return [
        start(),
        *steps(1, LOST),
        diverged(LOST, KEPT),
        *steps(KEPT + 1, N_STEPS, scale=0.5),
        end(),
    ]


def tell(tracker: Tracker, events: Iterable[Event]) -> None:
    for event in events:
        tracker(event)


def tell_to_end(tracker: Tracker, events: Iterable[Event]) -> None:
    tell(tracker, events)
    tracker.close()


def tell_killed(tracker: Tracker) -> dict:
    """Tell the session that is killed after `LOST`; give its checkpoint, made after `KEPT`."""
    tell(tracker, [start(), *steps(1, KEPT)])
    state = tracker.state_dict()
    tell(tracker, steps(KEPT + 1, LOST))
    return state


def tell_resumed(tracker: Tracker, state: dict) -> None:
    """Tell the session that goes on from the checkpoint, to the run's end."""
    tracker.load_state_dict(state)
    tell_to_end(tracker, [start(KEPT, "session-2"), *steps(KEPT + 1, N_STEPS), end()])


def expected(events: Iterable[Event]) -> Record:
    """Give what a tracker is to show: of each step what happened last."""
    record = Record()
    for event in events:
        match event:
            case BatchEnd(status=Status.SUCCESS):
                record.batch[event.step] = dict(event.metrics)
            case EpochEnd(status=Status.SUCCESS):
                record.epoch[event.epoch] = dict(event.metrics)
            case Measured():
                record.measured.setdefault(event.step, {}).update(event.metrics)
            case RunEnd():
                record.run = dict(event.metrics)
    return record


Points = dict[str, list[tuple[int, float]]]  # by metric


def curves(levels: dict[int, dict[str, float]], prefix: str = "") -> Points:
    """Turn metrics by step into points by metric."""
    found: Points = {}
    for step, metrics in sorted(levels.items()):
        for name, value in metrics.items():
            found.setdefault(f"{prefix}{name}", []).append((step, value))
    return found


def assert_same(found: dict, wanted: dict) -> None:
    """Hold points, or values by name, against one another, to the last bit."""
    # repr tells every two floats apart, and NaN is as NaN.
    assert {name: repr(found[name]) for name in sorted(found)} == {
        name: repr(wanted[name]) for name in sorted(wanted)
    }


def assert_same_record(found: Record, wanted: Record) -> None:
    for level in ("batch", "epoch", "measured"):
        assert_same(curves(getattr(found, level)), curves(getattr(wanted, level)))
    assert_same(found.run, wanted.run)
