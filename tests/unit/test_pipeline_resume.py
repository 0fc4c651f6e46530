"""A loop of one's own that is broken off, killed or diverges ends as one that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loops import Record
from torch import nn

from jemtrack.errors import Interrupted, TrainingDivergedError
from jemtrack.events.events import BatchEnd, Diverged, EpochEnd, PhaseEnd, PhaseStart, RunStart
from jemtrack.events.handlers import Callback
from jemtrack.loops.pipeline import Pipeline
from jemtrack.shared.random_streams import generator
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.recipe import Divergence

N_EPOCHS, N_BATCHES, EVERY = 2, 3, 2
N_STEPS = 2 * N_EPOCHS * N_BATCHES


class PowerCutError(Exception):
    pass


class Acts(Callback):
    """Does `act` after a step, once."""

    def __init__(self, step, act) -> None:
        self.step, self.act = step, act

    def __call__(self, event, state) -> None:
        if isinstance(event, BatchEnd) and event.step == self.step and event.metrics:
            self.step = 0
            self.act()


def cut() -> None:
    raise PowerCutError


def diverge() -> None:
    raise TrainingDivergedError("the loss is not finite", {"loss": 1e9})


class Fitting(Pipeline):
    """Two phases of two epochs of three batches; its own state is a sum over the batches."""

    n_phases = 2

    def __init__(self, folder, act=cut, step=0, **chosen) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2))
        self.models = {"net": net}
        adam = torch.optim.Adam(net.parameters(), lr=0.05)
        self.optimizers = {"net": adam}
        self.schedulers = {"net": torch.optim.lr_scheduler.StepLR(adam, 2)}
        self.total, self.bodies = 0.0, 0
        self.trackers, self.callbacks = [Record()], [Acts(step, act)]
        if folder:
            self.checkpoints = Checkpoints(folder, every_seconds=1e9, every_steps=EVERY)
        for name, value in chosen.items():
            setattr(self, name, value)

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state) -> None:
        self.total = state["total"]

    def run(self):
        for name in ("warm_up", "rest"):
            with self.phase(name, n_epochs=N_EPOCHS, n_batches=N_BATCHES):
                for epoch in self.epochs(N_EPOCHS):
                    self.run_epoch(epoch)

    def run_epoch(self, epoch):
        for number in self.batches(N_BATCHES):
            with self.batch() as metrics:
                metrics["loss"] = self.trained_on(epoch, number)
        self.epoch_metrics["train_loss"] = self.total
        self.schedulers["net"].step()  # here: a checkpoint is saved where the epoch ends

    def trained_on(self, epoch, number) -> torch.Tensor:
        points = torch.randn(8, 3, generator=generator(1, "points", epoch, number))
        loss = (self.models["net"](points) - points[:, :2]).square().mean()
        self.optimizers["net"].zero_grad()
        loss.backward()
        self.optimizers["net"].step()
        self.total += loss.item()
        self.bodies += 1
        return loss.detach()

    @property
    def events(self):
        return self.trackers[0].events

    @property
    def rate(self) -> float:
        return self.optimizers["net"].param_groups[0]["lr"]


@pytest.fixture(scope="module")
def whole() -> Fitting:
    loop = Fitting(None)
    loop.run()
    return loop


def assert_same(loop: Fitting, whole: Fitting) -> None:
    ours, theirs = loop.models["net"].state_dict(), whole.models["net"].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (loop.total, loop.rate) == (whole.total, whole.rate)
    for kind in (EpochEnd, PhaseEnd):
        found = loop.trackers[0].of(kind)
        assert found == whole.trackers[0].of(kind)[-len(found) :]
        assert found


@pytest.mark.parametrize("step", range(1, N_STEPS + 1))
def test_one_that_is_broken_off_after_any_batch(step, tmp_path, whole):
    broken = Fitting(tmp_path, cut, step)
    with pytest.raises(PowerCutError):
        broken.run()

    loop = Fitting(tmp_path)
    torch.rand(17)
    if step <= EVERY:  # there was no checkpoint, and the stream is where a new run has it
        torch.manual_seed(0)
        loop = Fitting(tmp_path)
    loop.run()

    assert_same(loop, whole)
    # The checkpoint of a step is written after the callbacks.
    done = (step - 1) // EVERY * EVERY
    assert loop.bodies == N_STEPS - done
    start = loop.events[0]
    assert (type(start), start.step) == (RunStart, done)
    if done:
        assert start.run_id == broken.events[0].run_id
    # What was done is passed over, and not told again.
    first = start.position.phase
    names = [event.name for event in loop.trackers[0].of(PhaseStart)]
    assert names == ["warm_up", "rest"][first:]


def test_one_that_was_killed(tmp_path, whole):
    ended = subprocess.run([sys.executable, __file__, tmp_path], env={**os.environ})
    assert ended.returncode == -signal.SIGKILL

    loop = Fitting(tmp_path)
    loop.run()

    assert_same(loop, whole)
    assert loop.bodies == N_STEPS - 6


def test_a_signal_waits_for_the_batch_and_its_checkpoint(tmp_path, whole):
    loop = Fitting(tmp_path, lambda: signal.raise_signal(signal.SIGTERM), 7)
    with pytest.raises(Interrupted):
        loop.run()
    assert loop.bodies == 7
    assert loop.status == "aborted"

    resumed = Fitting(tmp_path)
    resumed.run()

    assert_same(resumed, whole)
    assert resumed.bodies == N_STEPS - 7


@pytest.mark.parametrize("saved", [True, False])
def test_one_that_diverges_returns_to_its_last_checkpoint_with_lower_rates(saved, tmp_path):
    retry = Divergence(action="retry", lr_factor=0.5, max_retries=1)
    folder = tmp_path if saved else None  # in memory, the checkpoint is that of the start
    loop = Fitting(folder, diverge, 8, divergence=retry)
    loop.run()

    (event,) = loop.trackers[0].of(Diverged)
    back = 6 if saved else 0
    assert (event.step, event.retry, event.lr_scale) == (back, 1, 0.5)
    assert (event.position.phase, event.back_to.phase) == (1, 0)
    assert loop.bodies == N_STEPS + 8 - back
    assert loop.rate == pytest.approx(0.05 * 0.5 * 0.1**2)
    assert [end.step for end in loop.trackers[0].of(EpochEnd)][-1] == N_STEPS
    assert loop.status == "success"


def test_one_that_diverges_again_and_again_fails(tmp_path):
    loop = Fitting(tmp_path, divergence=Divergence(action="retry", max_retries=2))
    loop.callbacks = [Acts(8, diverge) for _ in range(3)]
    with pytest.raises(TrainingDivergedError, match="it was retried 2 times"):
        loop.run()
    assert loop.status == "failed"


if __name__ == "__main__":
    Fitting(Path(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGKILL), 7).run()
