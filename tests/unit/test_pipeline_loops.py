"""What a pipeline offers its loop, and what it refuses."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial

import pytest
import torch
from loops import (
    N_EPOCHS,
    WAYS,
    Automatic,
    ByHand,
    Loop,
    Record,
    Stub,
    at,
    fail,
    interrupt,
    stop,
    untimed,
)
from torch import nn

from jemtrack.callbacks.best_weights import BestWeights
from jemtrack.callbacks.early_stopping import EarlyStopping
from jemtrack.errors import InputError
from jemtrack.events.events import (
    ArtifactSaved,
    BatchEnd,
    BatchStart,
    EpochEnd,
    EpochStart,
    Measured,
    PhaseEnd,
    PhaseStart,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.events.handlers import Callback, Recorder, Tracker
from jemtrack.loops.pipeline import Pipeline


def test_an_epoch_goes_start_body_record_callbacks_clear():
    seen = []
    loop = Automatic(lambda epoch: seen.append("body"))

    class Told(Recorder):
        def __call__(self, event) -> None:
            if isinstance(event, EpochStart | EpochEnd):
                seen.append((type(event), dict(getattr(event, "metrics", {}))))

    class Acting(Callback):
        def __call__(self, event, state) -> None:
            if isinstance(event, EpochEnd):
                seen.append(("callback", dict(loop.epoch_metrics), state.latest))

    loop.trackers, loop.callbacks = [Told()], [Acting()]
    loop.run()

    metrics = {"train_loss": 2.0, "valid_loss": 3.0}
    assert seen[:4] == [
        (EpochStart, {}), "body", (EpochEnd, metrics), ("callback", metrics, metrics),
    ]  # fmt: skip
    assert seen[4:6] == [(EpochStart, {}), "body"]
    assert loop.epoch_metrics == {}


def test_metrics_are_cleared_where_a_failing_epoch_is_passed_over():
    class Patient(Automatic):
        def run(self):
            for epoch in range(N_EPOCHS):
                with suppress(ValueError):
                    self.run_epoch(epoch)
                assert self.epoch_metrics == {}

    loop, record = Patient(at(1, fail)), Record()
    loop.trackers = [record]
    loop.run()

    assert [end.status for end in record.of(EpochEnd)] == ["success", "failed", "success"]
    assert [end.epoch for end in record.of(EpochEnd)] == [1, 1, 3]
    assert record.of(PhaseEnd)[0].status == loop.status == Status.SUCCESS


@pytest.mark.parametrize("way", WAYS)
def test_a_loop_that_does_not_look_is_stopped_at_its_next_epoch(way):
    loop, record = way(look=False), Record()
    loop.trackers, loop.callbacks = [record], [callback := Stub(2, stop)]

    assert loop.run() is None

    assert len(record.of(EpochEnd)) == 2
    assert record.events[-1] == RunEnd(Status.STOPPED, {})
    assert PhaseEnd in [kind for kind, *_ in callback.seen]


def test_a_loop_can_stop_itself():
    class Sated(Automatic):
        def run_epoch(self, epoch):
            self.stop("enough")

    loop, record = Sated(), Record()
    loop.trackers = [record]
    loop.run()

    assert len(record.of(EpochEnd)) == 1
    assert (loop.status, record.of(PhaseEnd)[0].reason) == (Status.STOPPED, "enough")


def test_parameters_come_before_all_else():
    class Chosen(Automatic):
        def run(self, depth, *, width=2, **rest):
            super().run()

    loop, record = Chosen(), Record()
    loop.trackers, loop.parameters, loop.name = [record], {"data": "digits"}, "mine"
    loop.run(10, norm="batch")

    start = record.events[0]
    assert isinstance(start, RunStart)
    assert (start.name, start.step) == ("mine", 0)
    assert start.parameters == {
        "lr": 0.1, "data": "digits", "depth": 10, "width": 2, "norm": "batch",
    }  # fmt: skip
    assert record.kinds.count(RunStart) == record.kinds.count(RunEnd) == 1


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda loop: loop.epoch_metrics.update(valid_lsos=1), "no metric is called 'valid_lsos'"),
        (lambda loop: loop.run_metrics.update(accurac=1), "did you mean accuracy"),
        (lambda loop: loop.log_batch({"los": 1}), "no metric is called 'los'"),
        (lambda loop: loop.log({"los": 1}), "no metric is called 'los'"),
        (lambda loop: loop.epoch_metrics.update(loss="0.5"), "'loss' must be one number"),
        (lambda loop: loop.epoch_metrics.update(loss=torch.ones(2)), "must be one number"),
        (lambda loop: loop.start_epoch(2), "epoch 2 begins, but epoch 1 has not ended"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_set(act, message):
    refused = []

    def body(epoch):
        with pytest.raises(InputError, match=message) as caught:
            act(loop)
        refused.append(caught.value)
        raise caught.value

    loop, record = Automatic(at(1, body)), Record()
    loop.trackers = [record]
    with pytest.raises(InputError, match=message):
        loop.run()

    assert len(refused) == 1
    assert [end.status for end in record.of(EpochEnd)] == ["success", "failed"]
    assert loop.status == Status.FAILED


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda loop: loop.epoch_metrics.update(loss=1), "'loss' cannot be set: no epoch"),
        (lambda loop: loop.end_epoch(), "an epoch ends, but no epoch has begun"),
        (lambda loop: loop.log_batch({"loss": 1}), "a batch begins, but no epoch has begun"),
        (lambda loop: loop.run_epoch(0), "epoch 0 begins, but 1 epochs are done"),
    ],
)
def test_what_belongs_into_an_epoch_is_refused_outside_of_one(act, message):
    class After(Automatic):
        def run(self):
            self.run_epoch(0)
            act(self)

    loop = After()
    with pytest.raises(InputError, match=message):
        loop.run()
    assert loop.status == Status.FAILED


def test_what_belongs_into_a_run_is_refused_outside_of_one():
    loop = Automatic()
    for act in (lambda: loop.run_epoch(0), lambda: loop.epoch_metrics, lambda: loop.epoch(0)):
        with pytest.raises(InputError, match="Automatic is not running"):
            act()
    loop.run()

    with pytest.raises(InputError, match="'test_loss' cannot be set: the run has ended"):
        loop.run_metrics["test_loss"] = 1
    with pytest.raises(InputError, match="Automatic is not running"):
        loop.run_epoch(3)
    assert loop.run_metrics == {"test_loss": 0.5}


def test_an_epoch_that_never_ends_is_told_of():
    class Forgetful(ByHand):
        def run(self):
            self.start_epoch(0)

    loop, record = Forgetful(), Record()
    loop.trackers = [record]
    with pytest.raises(InputError, match=r"epoch 0 has not: end_epoch\(\) ends it"):
        loop.run()

    assert [type(event) for event in record.events[-3:]] == [EpochEnd, PhaseEnd, RunEnd]
    assert {event.status for event in record.events[-3:]} == {Status.FAILED}


def test_loops_that_end_before_they_have_run_are_refused():
    with pytest.raises(InputError, match=r"Later\.run must be a function that runs to its end"):

        class Later(Pipeline):
            async def run(self):
                pass


def test_what_a_mixin_brings_is_wrapped_too():
    class Mixin:
        def run_epoch(self, epoch):
            self.epoch_metrics["loss"] = epoch

    class Mixed(Mixin, Pipeline):
        n_epochs = 2

    mixed, record = Mixed(), Record()
    mixed.trackers = [record]
    mixed.run()

    assert [end.metrics for end in record.of(EpochEnd)] == [{"loss": 0.0}, {"loss": 1.0}]


def test_a_second_run_starts_afresh():
    loop, record = Automatic(), Record()
    loop.trackers = [record]
    loop.run()
    first, record.events = [untimed(event) for event in record.events], []
    loop.run()

    assert [untimed(event) for event in record.events] == first
    assert record.closed == 2


def test_phases_count_their_epochs_and_end_before_what_follows():
    class Phased(Loop):
        def run(self):
            with self.phase("warm-up", n_epochs=2):
                for epoch in self.epochs(2):
                    with self.epoch(epoch):
                        pass
            self.log({"test_loss": 1})
            with self.phase("joint"), self.epoch(2):
                pass
            self.log_artifact("weights", "weights")

    loop, record = Phased(), Record()
    loop.trackers = [record]
    loop.run()

    epoch = [EpochStart, EpochEnd]
    assert record.kinds == [
        RunStart, PhaseStart, *epoch, *epoch, PhaseEnd, Measured, PhaseStart, *epoch, PhaseEnd,
        ArtifactSaved, RunEnd,
    ]  # fmt: skip
    assert [(e.position.phase, e.position.epoch, e.epoch) for e in record.of(EpochEnd)] == [
        (0, 1, 1), (0, 2, 2), (1, 1, 3),
    ]  # fmt: skip
    assert [(e.name, e.reason) for e in record.of(PhaseEnd)] == [
        ("warm-up", "2 epochs are done"), ("joint", "1 epochs are done"),
    ]  # fmt: skip
    # Without batches, an epoch is a step.
    assert [e.step for e in record.of(EpochEnd)] == [1, 2, 3]
    assert record.of(Measured) == [Measured({"test_loss": 1.0}, 2)]


def test_callbacks_see_the_models_and_the_place():
    class Modelled(Automatic):
        def run(self):
            self.models["line"] = nn.Linear(1, 1)
            super().run()

    seen = []
    loop = Modelled()
    loop.callbacks = [callback := Stub(2, lambda state: seen.append({**state.models}))]
    loop.run()

    assert seen == [loop.models]
    ends = [entry[1:3] for entry in callback.seen if entry[0] is EpochEnd]
    assert [(position.epoch, step) for position, step in ends] == [(1, 2), (2, 4), (3, 6)]


def test_callbacks_can_save_the_models(tmp_path):
    from safetensors.torch import load_file

    loop = Automatic()
    loop.models = {"line": nn.Linear(2, 1)}
    path = tmp_path / "made" / "best.safetensors"
    loop.callbacks = [Stub(1, lambda _: loop.callbacks[0].save_weights(path))]
    loop.run()

    weights = load_file(path)
    assert {*weights} == {"line.weight", "line.bias"}
    assert torch.equal(weights["line.weight"], loop.models["line"].weight)


class Broken(Tracker):
    def __call__(self, event) -> None:
        raise OSError("no such server")


def test_a_tracker_that_fails_is_warned_of_once_and_the_run_goes_on(caplog):
    loop, record = Automatic(), Record()
    loop.trackers = [Broken(), record]
    loop.run()

    assert [message for message in caplog.messages if "Broken" in message] == [
        "Broken gets nothing of the run after step 0: OSError: no such server; when the training "
        "has ended, `jemtrack replay` sends it the whole record"
    ]
    assert loop.status == Status.SUCCESS
    assert len(record.of(EpochEnd)) == N_EPOCHS


def test_a_batch_that_fails_ends_as_failed():
    def body(epoch):
        with loop.batch() as metrics:
            metrics["loss"] = 1
            raise ValueError

    loop, record = Automatic(body), Record()
    loop.trackers = [record]
    with pytest.raises(ValueError):  # noqa: PT011
        loop.run()

    assert record.kinds[-6:] == [BatchEnd, BatchStart, BatchEnd, EpochEnd, PhaseEnd, RunEnd]
    assert (record.events[-4].metrics, record.events[-4].status) == ({}, Status.FAILED)


PROCESS = """
import os, signal, sys, time
from jemtrack.loops.pipeline import Pipeline
from jemtrack.record.jsonl import JsonLines

class Loop(Pipeline):
    def run(self):
        with self.epoch(0):
            os.kill(os.getpid(), signal.{number})
            time.sleep(60)

loop = Loop()
loop.trackers = [JsonLines(folder=sys.argv[1])]
loop.run()
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_killed_process_leaves_a_whole_record_and_does_not_succeed(number, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS.format(number=number), tmp_path],
        stderr=subprocess.PIPE, text=True, timeout=50, env={**os.environ},
    )  # fmt: skip

    assert ended.returncode != 0
    assert f"Interrupted: ended by {number}" in ended.stderr
    assert '"status": "aborted"' in (tmp_path / "run.jsonl").read_text().splitlines()[-1]


def test_signals_are_the_process_own_again_after_a_run():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with suppress(KeyboardInterrupt):
        Automatic(partial(interrupt)).run()

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_of_nested_epochs_the_outermost_gives_the_metrics():
    class Parent(Pipeline):
        n_epochs = 1

        def run_epoch(self, epoch):
            return {"accuracy": 0.5}

    class Child(Parent):
        def run_epoch(self, epoch):
            return {"valid_accuracy": super().run_epoch(epoch)["accuracy"]}

    loop, record = Child(), Record()
    loop.trackers = [record]
    loop.run()

    assert [end.metrics for end in record.of(EpochEnd)] == [{"valid_accuracy": 0.5}]


def test_a_signal_waits_until_everybody_is_told():
    class Signalling(Record):
        def __call__(self, event) -> None:
            super().__call__(event)
            if isinstance(event, EpochEnd):
                signal.raise_signal(signal.SIGINT)

    loop, first, second = Automatic(), Signalling(), Record()
    loop.trackers, loop.callbacks = [first, second], [callback := Stub(9, stop)]
    with pytest.raises(KeyboardInterrupt):
        loop.run()

    assert first.events == second.events
    assert [end.status for end in second.of(EpochEnd)] == ["success"]
    assert callback.seen[-1][0] is EpochEnd


def test_callbacks_are_told_the_end_of_a_phase_that_is_stopped():
    class Phased(Loop):
        def run(self):
            with self.phase("joint"):
                for epoch in range(N_EPOCHS):
                    with self.epoch(epoch):
                        pass

    loop, record = Phased(), Record()
    loop.trackers, loop.callbacks = [record], [callback := Stub(1, stop)]
    loop.run()

    assert [(end.name, end.reason) for end in record.of(PhaseEnd)] == [("joint", "good enough")]
    assert (loop.status, callback.seen[-1][0]) == (Status.STOPPED, PhaseEnd)


class Falling(Pipeline):
    """Two phases; the weight is the epoch's number, the loss is least after the second epoch."""

    n_phases = 2

    def __init__(self, epochs) -> None:
        self.models = {"line": nn.Linear(1, 1)}
        self.numbers = epochs

    def run(self):
        with self.phase("first", n_epochs=6):
            for epoch in self.numbers(self):
                self.run_epoch(epoch)
        with self.phase("second", n_epochs=1):
            self.between = self.weight
            self.run_epoch(6)

    def run_epoch(self, epoch):
        with torch.no_grad():
            self.models["line"].weight.fill_(epoch)
        return {"train_loss": abs(epoch - 1) + 1}

    @property
    def weight(self) -> float:
        return self.models["line"].weight.item()


@pytest.mark.parametrize("epochs", [lambda loop: loop.epochs(6), lambda loop: range(6)])
def test_early_stopping_ends_a_phase_and_the_best_weights_come_back_at_the_end(epochs, tmp_path):
    loop, record = Falling(epochs), Record()
    loop.trackers, loop.folder = [record], tmp_path
    loop.callbacks = [
        EarlyStopping(metric="train_loss", patience=2),
        BestWeights(metric="train_loss", restore=True),
    ]
    loop.run()

    assert [(end.name, end.status) for end in record.of(PhaseEnd)] == [
        ("first", "stopped"), ("second", "success"),
    ]  # fmt: skip
    assert record.of(PhaseEnd)[0].reason.startswith("train_loss was n")
    assert [end.metrics["train_loss"] for end in record.of(EpochEnd)] == [2, 1, 2, 3, 6]
    assert loop.status == Status.SUCCESS
    assert (loop.between, loop.weight) == (3.0, 1.0)
    assert record.of(ArtifactSaved)[-1] == ArtifactSaved(tmp_path / "best.safetensors", "weights")


def test_a_wish_to_end_that_comes_with_the_last_epoch_stops_nothing():
    class Short(Automatic):
        n_epochs = N_EPOCHS

    loop, record = Short(), Record()
    loop.trackers = [record]
    loop.callbacks = [Stub(N_EPOCHS, lambda state: setattr(state, "stop_phase", "enough"))]
    loop.run()

    assert (loop.status, record.of(PhaseEnd)[0].reason) == (Status.SUCCESS, "3 epochs are done")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import jemtrack.loops.pipeline
from jemtrack.loops.pipeline_file import pipeline_problems
"""


def test_a_pipeline_is_declared_and_its_file_checked_without_torch():
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)
