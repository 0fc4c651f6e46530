"""Loops of one's own that a test can watch: automatic, in blocks, by hand."""

import signal
from dataclasses import replace

import torch

from jemtrack.events.events import BatchEnd, EpochEnd, RunStart
from jemtrack.events.handlers import Callback, Recorder
from jemtrack.loops.pipeline import Pipeline
from jemtrack.shared.components import Option

N_EPOCHS = 3


class Record(Recorder):
    def __init__(self) -> None:
        self.events, self.closed = [], 0

    def __call__(self, event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def kinds(self):
        return [type(event) for event in self.events]


class Stub(Callback):
    """Does `act` at the end of the epoch `epoch`, counted from 1."""

    def __init__(self, epoch, act) -> None:
        self.epoch, self.act, self.seen = epoch, act, []

    def __call__(self, event, state) -> None:
        self.seen.append((type(event), state.position, state.step, dict(state.latest)))
        if isinstance(event, EpochEnd) and event.epoch == self.epoch:
            self.act(state)


class Loop(Pipeline):
    """Calls `body` in the middle of each epoch, after the epoch's metrics were set."""

    lr: float = Option(float, "the learning rate", default=0.1)

    def __init__(self, body=lambda epoch: None, look=True) -> None:
        self.lr = 0.1
        self.body, self.look = body, look

    def work(self, epoch) -> None:
        with self.batch() as metrics:
            metrics["loss"] = 1 / (epoch + 1)
        self.epoch_metrics["train_loss"] = 2 / (epoch + 1)
        self.log_batch({"loss": 3.0})
        self.body(epoch)
        self.epoch_metrics["valid_loss"] = torch.tensor(3.0 + epoch)

    def left(self):
        return self.epochs(N_EPOCHS) if self.look else range(N_EPOCHS)

    def end(self) -> str:
        self.run_metrics["test_loss"] = 0.5
        return "done"


class Automatic(Loop):
    def run(self):
        for epoch in self.left():
            self.run_epoch(epoch)
        return self.end()

    def run_epoch(self, epoch):
        self.work(epoch)


class Returning(Automatic):
    """Returns a part of its metrics, and has a parent that is wrapped too."""

    def run(self):
        return super().run()

    def run_epoch(self, epoch):
        super().run_epoch(epoch)
        return {"valid_loss": self.epoch_metrics.pop("valid_loss")}


class InBlocks(Loop):
    def run(self):
        for epoch in self.left():
            with self.epoch(epoch):
                self.work(epoch)
        return self.end()


class ByHand(Loop):
    def run(self):
        for epoch in self.left():
            self.start_epoch(epoch)
            self.work(epoch)
            self.end_epoch()
        return self.end()


WAYS = [Automatic, Returning, InBlocks, ByHand]


def fail(_) -> None:
    raise ValueError("no")


def interrupt(_) -> None:
    signal.raise_signal(signal.SIGINT)


def terminate(_) -> None:
    signal.raise_signal(signal.SIGTERM)


def stop(state) -> None:
    state.stop = "good enough"


def at(number, act):
    return lambda epoch: act(epoch) if epoch == number else None


def untimed(event):
    if isinstance(event, RunStart):
        return replace(event, name="", run_id="", session_id="")
    return replace(event, seconds=0.0) if isinstance(event, BatchEnd) else event
