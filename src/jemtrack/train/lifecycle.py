"""Where a loop that is not the engine's stands, and the events that it makes on its way."""

from __future__ import annotations

import operator
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from jemtrack.errors import InputError
from jemtrack.train.dispatcher import EventDispatcher, outcome
from jemtrack.train.events import (
    BatchEnd,
    BatchStart,
    EpochEnd,
    EpochStart,
    Event,
    PhaseEnd,
    PhaseStart,
    Position,
    Status,
)
from jemtrack.train.interruption import PromptInterruption
from jemtrack.train.metrics import MetricValues

_NO_EPOCH = "no epoch has begun; run_epoch, `with self.epoch(n):` or start_epoch(n) begins one"
_NO_RUN = "the run has ended"

# What stays open where a part of a run is broken off: the phase, and in it the epoch.
_NOTHING, _PHASE, _EPOCH = 0, 1, 2


class Stopped(BaseException):
    """Ends a loop that goes on though a callback wants the run or the phase to end."""


class Lifecycle:
    """One run of a loop: begins and ends its phases, epochs and batches, and keeps its state.

    While trackers and callbacks are told, signals wait. A part that breaks off is announced as
    failed or aborted to the trackers alone, and has no metrics.
    """

    def __init__(self, audience: EventDispatcher, interruption: PromptInterruption) -> None:
        self.audience = audience
        self.state = audience.state
        self.run_metrics = MetricValues()
        self.epoch_metrics = MetricValues(_NO_EPOCH)
        self.usual_phase = ("train", 0, 0)  # name, epochs, batches an epoch; 0: not known
        self.under_way = True
        self._interruption = interruption
        self.n_phases = 1
        self._phase: PhaseStart | None = None
        self._number = 0  # of the next phase
        self._before = 0  # epochs done before the phase
        self._epoch: int | None = None
        self._batch_began = 0.0

    @property
    def in_epoch(self) -> bool:
        """Whether an epoch has begun and not ended."""
        return self._epoch is not None

    def tell(self, event: Event) -> None:
        """Dispatch `event`; a signal acts when all have heard it."""
        with self._interruption.held():
            self.audience.dispatch(event)

    @contextmanager
    def phase(self, name: str, n_epochs: int = 0, n_batches: int = 0) -> Iterator[None]:
        """Dispatch a phase around the body; the phase before ends where this one begins.

        A callback that wants the phase to end ends the body alone.
        """
        if self.state.stop:
            raise Stopped
        mine = None
        try:
            mine = self._start_phase(name, n_epochs, n_batches)
            yield
        except Stopped:
            self._end_phase(mine)
            if self.state.stop:
                raise
            return
        except BaseException as error:
            self._break_off(error, _NOTHING)
            raise
        self._end_phase(mine)

    def start_epoch(self, epoch: int) -> None:
        """Begin the epoch number `epoch`, counted from 0 through all phases.

        Raises:
            InputError: where an epoch is open, or one of that number was done.
        """
        number = operator.index(epoch)
        if self._epoch is not None:
            raise InputError(f"epoch {number} begins, but epoch {self._epoch} has not ended")
        if number < self.state.epochs:
            raise InputError(
                f"epoch {number} begins, but {self.state.epochs} epochs are done: the epochs of a "
                "run count on from 0, and `for epoch in self.epochs(n)` counts them"
            )
        if self.state.stopped:
            raise Stopped
        if not self._phase:
            self._start_phase(*self.usual_phase)
        self.state.position = Position(self._number - 1, number - self._before)
        self._epoch = number
        self.epoch_metrics.refusal = ""
        self._batch_began = time.perf_counter()
        self.tell(EpochStart(self.state.position))

    def end_epoch(self) -> None:
        """Record the epoch's metrics, let callbacks act on them, and clear them.

        Raises:
            InputError: where no epoch is open.
        """
        if self._epoch is None:
            raise InputError(f"an epoch ends, but {_NO_EPOCH}")
        state = self.state
        # A loop that shows no batches takes one step an epoch, for those who go by steps.
        state.step += not state.position.batch
        state.epochs = self._epoch + 1
        state.position = replace(state.position, epoch=state.epochs - self._before, batch=0)
        state.latest = {**self.epoch_metrics}
        try:
            self.tell(EpochEnd(state.position, state.latest, state.epochs, state.step))
        finally:
            self._leave_epoch()

    @contextmanager
    def epoch(self, epoch: int) -> Iterator[MetricValues]:
        """Begin an epoch, end it after the body; give its metrics."""
        opened = self.in_epoch
        try:
            self.start_epoch(epoch)
            yield self.epoch_metrics
            self.end_epoch()
        except BaseException as error:
            if not opened:
                self._break_off(error, _PHASE)
            raise

    @contextmanager
    def batch(self) -> Iterator[MetricValues]:
        """Dispatch a batch around the body, which may set metrics of it.

        Raises:
            InputError: where no epoch is open.
        """
        if not self.in_epoch:
            raise InputError(f"a batch begins, but {_NO_EPOCH}")
        state, metrics = self.state, MetricValues()
        try:
            self.tell(BatchStart(state.position))
            yield metrics
            state.step += 1
            state.position = replace(state.position, batch=state.position.batch + 1)
            began, self._batch_began = self._batch_began, time.perf_counter()
            seconds = self._batch_began - began
            self.tell(BatchEnd(state.position, {**metrics}, state.step, seconds))
        except BaseException as error:
            self._break_off(error, _EPOCH)
            raise

    def finish(self) -> None:
        """End the phase after the last epoch.

        Raises:
            InputError: where an epoch is open.
        """
        self._end_phase(self._phase)

    def leave(self) -> None:
        """Take no more metrics."""
        self.under_way = False
        self._leave_epoch()
        self.epoch_metrics.refusal = self.run_metrics.refusal = _NO_RUN

    def _start_phase(self, name: str, n_epochs: int, n_batches: int) -> PhaseStart:
        self._end_phase(self._phase)
        self._before = self.state.epochs
        self.state.position, self.state.stop_phase = Position(self._number), ""
        self._number += 1
        n_phases = max(self.n_phases, self._number)
        started = PhaseStart(self.state.position, name, n_phases, n_epochs, n_batches)
        self._phase = started
        self.tell(started)
        return started

    def _end_phase(self, phase: PhaseStart | None) -> None:
        """End the phase, unless it has ended before."""
        if not phase or phase is not self._phase:
            return
        if self._epoch is not None:
            hint = "end_epoch() ends it"
            raise InputError(f"{phase.name} ends, but epoch {self._epoch} has not: {hint}")
        self._phase = None
        n_epochs, state = self.state.epochs - self._before, self.state
        if n_epochs == phase.n_epochs:  # a wish that came with the last epoch
            state.stop_phase = ""
        reason = state.stop or state.stop_phase or f"{n_epochs} epochs are done"
        status = Status.STOPPED if state.stopped else Status.SUCCESS
        self.tell(PhaseEnd(state.position, phase.name, reason, status))

    def _leave_epoch(self) -> None:
        self._epoch = None
        self.epoch_metrics.clear()
        self.epoch_metrics.refusal = _NO_EPOCH

    def _break_off(self, error: BaseException, keep: int) -> None:
        with self._interruption.held():
            self.audience.dispatch_ends(*outcome(error), keep)
        if keep == _NOTHING:
            self._phase = None
        if keep <= _PHASE:
            self._leave_epoch()
