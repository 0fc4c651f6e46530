"""What happens where a loss or a gradient is not finite, or a loss explodes."""

import json
import math
from dataclasses import replace

import pytest
from diverging_run import CUSP, HUGE, loss, make, record_of
from small_run import (
    N_BATCHES,
    N_EPOCHS,
    N_STEPS,
    NAN,
    PHASES,
    STEPS,
    assert_same,
)
from torch import Tensor

from jemtrack.callbacks.learning_rate import LearningRate
from jemtrack.errors import TrainingDivergedError
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
from jemtrack.events.handlers import Callback
from jemtrack.record.jsonl import JsonLines, read_record
from jemtrack.train.state import TrainState


class Finite(Callback):
    """Holds that every weight and every running statistic is finite after each good event."""

    def __call__(self, event: Event, state: TrainState) -> None:
        assert all(value.isfinite().all() for value in state.models["net"].state_dict().values())


@pytest.mark.parametrize(
    ("factor", "what"),
    [(NAN, "loss is not finite"), (HUGE, "loss is too large"), (CUSP, "gradient is not finite")],
)
def test_a_run_that_may_not_go_back_fails_with_the_last_losses(tmp_path, factor, what):
    run = make(tmp_path, bad={(3, 1, 0): factor}, action="fail")
    with pytest.raises(TrainingDivergedError) as caught:
        run.train()

    ends = [end for end in record_of(run).of(BatchEnd) if end.status == Status.SUCCESS]
    before = ", ".join(f"{end.metrics['loss']:g}" for end in ends[-5:])
    assert len(ends) == 7
    assert str(caught.value).startswith(f"the {what} at epoch 4, batch 2 (loss ")
    assert f"; the losses before: {before}); the weights were left" in str(caught.value)
    assert caught.value.losses.keys() == {"loss"}
    assert not record_of(run).of(Diverged)
    assert record_of(run).events[-1].status == Status.FAILED
    assert all(weight.isfinite().all() for weight in run.state.models["net"].parameters())


def test_the_first_batch_has_no_losses_before_it(tmp_path):
    with pytest.raises(TrainingDivergedError, match="the losses before: none"):
        make(tmp_path, bad={(0, 0, 0): NAN}, action="fail").train()


def test_the_losses_before_are_those_that_are_not_void(tmp_path):
    """Step 5 fails and training goes back to step 3; step 4 fails: before it there are three."""
    run = make(tmp_path, bad={(2, 0, 0): NAN, (1, 1, 1): NAN}, max_retries=1)
    with pytest.raises(TrainingDivergedError) as caught:
        run.train()

    three = record_of(run).of(BatchEnd)[:3]
    losses = ", ".join(f"{end.metrics['loss']:g}" for end in three)
    assert f"; the losses before: {losses}); " in str(caught.value)
    assert str(caught.value).endswith("; it was retried 1 times, as often as it may be")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("limit", "n_diverged"), [(1e6, 1), (1e12, 0)])
def test_a_loss_explodes_whose_absolute_value_is_above_the_limit(tmp_path, sign, limit, n_diverged):
    run = make(tmp_path, bad={(1, 0, 0): HUGE}, max_loss=limit)

    def signed(models, batch) -> dict[str, Tensor]:
        return {"loss": sign * loss(models, batch)["loss"].clamp(max=1e11)}

    run.phases = [replace(phase, objective=signed) for phase in run.phases]
    run.train()

    assert len(record_of(run).of(Diverged)) == n_diverged


@pytest.mark.parametrize(
    ("factor", "phase", "place", "step", "position"),
    [
        (NAN, 0, (0, 0), 0, Position(0, 0, 0)),
        (CUSP, 0, (1, 0), 0, Position(0, 0, 0)),
        (NAN, 0, (1, 1), 3, Position(0, 1, 1)),
        (math.inf, 0, (1, 1), 3, Position(0, 1, 1)),
        (HUGE, 0, (3, 0), 6, Position(0, 3, 0)),
        (CUSP, 1, (0, 0), 6, Position(0, 3, 0)),
        (NAN, 1, (1, 0), 9, Position(1, 0, 1)),
        (HUGE, 1, (3, 1), 15, Position(1, 3, 1)),
    ],
)
def test_training_goes_back_to_the_last_checkpoint(tmp_path, factor, phase, place, step, position):
    run = make(tmp_path, Finite(), bad={(*place, 0): factor}, phase=phase)
    run.train()

    record = record_of(run)
    (diverged,) = record.of(Diverged)
    assert (diverged.position, diverged.back_to) == (Position(phase, *place), position)
    assert (diverged.step, diverged.epoch) == (step, step // N_BATCHES)
    assert (diverged.retry, diverged.lr_scale) == (1, 0.5)
    assert diverged.losses.keys() == {"loss"}
    number = record.events.index(diverged)
    told = [event.step for event in record.events[number:] if isinstance(event, BatchEnd)]
    assert told == [*range(step + 1, N_STEPS + 1)]
    assert record.events[-1] == RunEnd(Status.SUCCESS, run.state.latest)
    assert (run.state.retries, run.state.lr_scale) == (1, 0.5)


@pytest.mark.parametrize("kept", [True, False], ids=["checkpoints", "memory"])
def test_the_ends_of_what_is_open_are_told_once_before_the_return(tmp_path, kept):
    run = make(tmp_path, bad={(2, 1, 0): NAN})
    if not kept:
        run.checkpoints = None  # the one in memory is of the run's start: a minute is not over
    run.train()

    events = record_of(run).events
    (at,) = (number for number, event in enumerate(events) if isinstance(event, Diverged))
    assert [(type(event), event.status) for event in events[at - 3 : at]] == [
        (BatchEnd, Status.FAILED),
        (EpochEnd, Status.FAILED),
        (PhaseEnd, Status.FAILED),
    ]
    assert [event.metrics for event in events[at - 3 : at - 1]] == [{}, {}]
    assert "the loss is not finite at epoch 3, batch 2" in events[at - 1].reason
    assert events[at].step == (3 if kept else 0)
    assert [type(event) for event in events[at + 1 : at + 4]] == [
        PhaseStart,
        EpochStart,
        BatchStart,
    ]
    for start, end in ((PhaseStart, PhaseEnd), (EpochStart, EpochEnd), (BatchStart, BatchEnd)):
        assert len(record_of(run).of(start)) == len(record_of(run).of(end))
    assert [len(record_of(run).of(kind)) for kind in (RunStart, RunEnd)] == [1, 1]
    assert record_of(run).n_closed == 1


def test_in_memory_the_weights_are_those_of_a_run_with_checkpoints(tmp_path):
    """Both go back to the start."""
    kept = make(tmp_path / "kept", bad={(0, 1, 0): NAN})
    kept.train()
    memory = make(tmp_path / "memory", bad={(0, 1, 0): NAN})
    memory.checkpoints = None
    memory.train()

    assert_same(memory, kept)


@pytest.mark.parametrize("max_retries", [1, 2, 3])
def test_a_run_goes_back_so_often_and_no_more(tmp_path, max_retries):
    run = make(
        tmp_path,
        bad={(2, 1, retry): NAN for retry in range(max_retries + 1)},
        max_retries=max_retries,
    )
    with pytest.raises(TrainingDivergedError, match=f"it was retried {max_retries} times"):
        run.train()

    record = record_of(run)
    assert [(event.retry, event.lr_scale) for event in record.of(Diverged)] == [
        (retry, 0.5**retry) for retry in range(1, max_retries + 1)
    ]
    assert [event.step for event in record.of(Diverged)] == [3] * max_retries
    assert len(record.of(EpochStart)) == len(record.of(EpochEnd))
    assert record.events[-1].status == Status.FAILED


def test_the_record_has_each_step_and_epoch_once_and_every_return(tmp_path):
    run = make(tmp_path, LearningRate(), bad={(1, 1, 0): NAN, (3, 0, 1): CUSP})
    jsonl = JsonLines(folder=str(tmp_path / "record"))
    run.trackers = [*run.trackers, jsonl]
    run.train()

    def lines(name):
        return [json.loads(line) for line in (tmp_path / "record" / name).read_text().splitlines()]

    steps = [line["global_step"] for phase in PHASES for line in lines(f"{phase}.jsonl")]
    assert steps == [*STEPS]
    assert [line["epoch"] for line in lines("epochs.jsonl")] == [*range(1, 2 * N_EPOCHS + 1)]
    told = [line["event"] for line in lines("run.jsonl")]
    assert told.count("diverged") == 2
    assert (told[0], told[-1]) == ("run_start", "run_end")
    record = read_record(tmp_path / "record")
    good = [end for end in record_of(run).of(BatchEnd) if end.status == Status.SUCCESS]
    assert record.batch == {end.step: end.metrics for end in good}
    assert record.measured == {event.step: event.metrics for event in record_of(run).of(Measured)}


class Counting:
    """An objective with a state: how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, models, batch) -> dict[str, Tensor]:
        self.calls += 1
        return loss(models, batch)

    def state_dict(self) -> dict[str, int]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("phase", "place"), [(0, (1, 1)), (1, (0, 0)), (1, (2, 0))])
def test_an_objective_forgets_what_is_void(tmp_path, shared, phase, place):
    """The first batch of the second phase fails, and the last checkpoint is in the first phase."""
    run = make(tmp_path, bad={(*place, 0): NAN}, phase=phase)
    one, other = Counting(), Counting()
    objectives = (one, one) if shared else (one, other)
    pairs = zip(run.phases, objectives, strict=True)
    run.phases = [replace(phase, objective=objective) for phase, objective in pairs]
    run.train()

    assert len(record_of(run).of(Diverged)) == 1
    assert [each.calls for each in objectives] == ([16, 16] if shared else [8, 8])


def test_what_was_waiting_to_be_told_is_void_with_its_step(tmp_path):
    """A callback may find a divergence too; another one has just announced what it saw."""

    class Announcing(Callback):
        def __call__(self, event, state) -> None:
            if isinstance(event, BatchEnd):
                self.dispatch(Measured({"gradient_norm": 1.0}, event.step))

    class Finding(Callback):
        def __call__(self, event, state) -> None:
            if isinstance(event, BatchEnd) and event.step == 5 and not state.retries:
                raise TrainingDivergedError("that looks bad")

    run = make(tmp_path, Announcing(), Finding())
    run.train()

    told = [event.step for event in record_of(run).of(Measured)]
    assert told == [1, 2, 3, 4, 4, *range(5, N_STEPS + 1)]
