"""The lifecycle of a run: phases, epochs and batches begin, end, are saved, resumed and retried.

The engine's `fit` and the loops of one's own (`Pipeline`) use the same blocks, so that all
events are made here.
"""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from jemtrack.errors import InputError, Interrupted, TrainingDivergedError
from jemtrack.train.checkpoint_manager import CheckpointManager
from jemtrack.train.dispatcher import EventDispatcher
from jemtrack.train.distributed import all_reduce_max, broadcast, rank, world_size
from jemtrack.train.events import (
    BatchEnd,
    BatchStart,
    Diverged,
    EpochEnd,
    EpochStart,
    Event,
    PhaseEnd,
    PhaseStart,
    Position,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.train.interruption import Interruption, Stopped
from jemtrack.train.metrics import MetricValues
from jemtrack.train.optimizers import scale_learning_rates
from jemtrack.train.random_streams import turn_random_state
from jemtrack.train.recipe import Divergence

log = logging.getLogger("jemtrack")

T = TypeVar("T")

_NO_EPOCH = "no epoch has begun; run_epoch, `with self.epoch(n):` or start_epoch(n) begins one"
_NO_RUN = "the run has ended"


class Lifecycle:
    """One run: announces each start and end once, saves, resumes, and retries after divergence.

    A part that breaks off ends as failed or aborted for the trackers alone, and has no metrics.
    Signals wait while events are dispatched. After a batch or an epoch a checkpoint is saved if
    one is due, and a run that a signal has asked to end raises `Interrupted`; all processes of a
    training do so after the same batch.
    """

    def __init__(
        self,
        dispatcher: EventDispatcher,
        checkpoints: CheckpointManager,
        interruption: Interruption,
        divergence: Divergence | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.state = dispatcher.state
        self.checkpoints = checkpoints
        self.divergence = divergence or Divergence()
        self.run_metrics = MetricValues()
        self.epoch_metrics = MetricValues(_NO_EPOCH)
        self.running = True
        self.n_phases = 1
        self.saves_batches = True  # whether a checkpoint may be saved within an epoch
        self._interruption = interruption
        self._open: list[Event] = []  # the starts of what has not ended
        self._batch_began = 0.0

    # The run.

    def run(self, start: RunStart, body: Callable[[], T], metrics: Callable[[], Any]) -> T:
        """Resume if there is a checkpoint, run `body`, and announce the end on every way out.

        After a divergence that may be retried, `body` runs again from the last checkpoint: it
        must do what is left. `metrics` returns those of the run.
        """
        status = Status.FAILED
        try:
            result = self._run(start, body)
            status = Status.STOPPED if self.state.stopped else Status.SUCCESS
            return result
        except BaseException as error:
            status, _ = _outcome(error)
            self._break_off(error, 0)
            raise
        finally:
            self.running = False
            self._leave_epoch()
            self.epoch_metrics.refusal = self.run_metrics.refusal = _NO_RUN
            self.dispatcher.end(RunEnd(status, metrics()))

    def dispatch(self, event: Event) -> None:
        """Dispatch `event`; a signal acts when all have seen it."""
        with self._interruption.held():
            self.dispatcher.dispatch(event)

    def _run(self, start: RunStart, body: Callable[[], T]) -> T:
        state, checkpoints = self.state, self.checkpoints
        retries = self.divergence.action == "retry"
        if retries:
            checkpoints.remember_objectives()
        checkpoints.resume(start.name, start.run_id)
        start = replace(start, position=state.position, epoch=state.epochs, step=state.step)
        self.dispatch(replace(start, run_id=checkpoints.run_id))
        if retries and not state.step:
            checkpoints.save()
        while True:
            try:
                return body()
            except TrainingDivergedError as error:
                if not retries:
                    raise
                self._retry(error)

    def _retry(self, error: TrainingDivergedError) -> None:
        """Return to the last checkpoint with lower learning rates and other noise.

        Raises:
            TrainingDivergedError: if there is none, or as many retries as allowed were made.
        """
        state, how = self.state, self.divergence
        saved = self.checkpoints.newest()
        if saved is None:
            raise error
        if state.retries >= how.max_retries:
            message = f"{error}; it was retried {state.retries} times, as often as it may be"
            raise TrainingDivergedError(message, error.losses) from error
        position, retries, scale = state.position, state.retries + 1, state.lr_scale * how.lr_factor
        self._break_off(error, 0)
        self.checkpoints.restore_for_retry(saved)
        scale_learning_rates(state.optimizers, state.schedulers, scale / state.lr_scale)
        state.retries, state.lr_scale = retries, scale
        turn_random_state(retries * world_size() + rank())
        self.dispatch(
            Diverged(
                position, state.position, state.epochs, state.step, error.losses, retries, scale
            )
        )
        # Saved at once: a kill must not give the run its retries back.
        self.checkpoints.save()

    # Its parts.

    @contextmanager
    def phase(self, start: PhaseStart, end: Callable[[], PhaseEnd]) -> Iterator[None]:
        """Announce a phase around the block; `end` makes the event of its end."""
        with self._part(start):
            yield
        self.finish(end())

    @contextmanager
    def epoch(self) -> Iterator[MetricValues]:
        """Announce the epoch at the state's position around the block, which sets its metrics."""
        with self._part(None):
            self.begin_epoch()
            yield self.epoch_metrics
        self.end_epoch()

    def begin_epoch(self) -> None:
        """Announce the start of the epoch at the state's position."""
        self.epoch_metrics.refusal = ""
        self._batch_began = time.perf_counter()
        self.begin(EpochStart(self.state.position))

    def end_epoch(self) -> None:
        """Announce the end of the epoch with its metrics, clear them, and save if that is due."""
        state = self.state
        state.seconds = broadcast(state.seconds + time.perf_counter() - self._batch_began)
        state.latest, state.totals = {**self.epoch_metrics}, {}
        state.epochs += 1
        state.position = replace(state.position, epoch=state.position.epoch + 1, batch=0)
        try:
            self.finish(EpochEnd(state.position, state.latest, state.epochs, state.step))
        finally:
            self._leave_epoch()
        # All processes do what the callbacks of rank zero ask for.
        state.stop, state.stop_phase = broadcast((state.stop, state.stop_phase))
        self._save_or_stop()

    @contextmanager
    def batch(self) -> Iterator[MetricValues]:
        """Announce the batch at the state's position around the block, which sets its metrics."""
        state, metrics = self.state, MetricValues()
        with self._part(BatchStart(state.position)):
            yield metrics
        state.step += 1
        state.position = replace(state.position, batch=state.position.batch + 1)
        before, self._batch_began = self._batch_began, time.perf_counter()
        seconds = self._batch_began - before
        state.seconds += seconds
        self.finish(BatchEnd(state.position, {**metrics}, state.step, seconds))
        if self.saves_batches:
            self._save_or_stop()

    @property
    def in_epoch(self) -> bool:
        """Whether an epoch has begun and not ended."""
        return any(isinstance(start, EpochStart) for start in self._open)

    def begin(self, start: Event) -> None:
        """Announce a start."""
        self._open.append(start)
        self.dispatch(start)

    def finish(self, end: Event) -> None:
        """Announce the end of what began last."""
        self._open.pop()
        self.dispatch(end)

    @contextmanager
    def _part(self, start: Event | None) -> Iterator[None]:
        depth = len(self._open)
        try:
            if start:
                self.begin(start)
            yield
        except BaseException as error:
            self._break_off(error, depth)
            raise

    def _break_off(self, error: BaseException, depth: int) -> None:
        """Announce the ends of all that is open beyond `depth`, the innermost first."""
        status, reason = _outcome(error)
        with self._interruption.held():
            while len(self._open) > depth:
                start = self._open.pop()
                self.dispatcher.notify_trackers(self._broken_end(start, status, reason))
                if isinstance(start, EpochStart):
                    self._leave_epoch()

    def _broken_end(self, start: Event, status: Status, reason: str) -> Event:
        state = self.state
        if isinstance(start, BatchStart):
            return BatchEnd(state.position, {}, state.step, status=status)
        if isinstance(start, EpochStart):
            return EpochEnd(state.position, {}, state.epochs, state.step, status)
        assert isinstance(start, PhaseStart)
        return PhaseEnd(state.position, start.name, reason, status)

    def _leave_epoch(self) -> None:
        self.epoch_metrics.clear()
        self.epoch_metrics.refusal = _NO_EPOCH

    def _save_or_stop(self) -> None:
        wish = self._interruption.number or int(self.checkpoints.due())
        wish = all_reduce_max(wish, self.checkpoints.device)
        if wish:
            self.checkpoints.save()
        if wish > 1:
            raise Interrupted(wish)


class LoopLifecycle(Lifecycle):
    """The lifecycle of a loop of one's own, which may leave out phases and batches.

    A loop that resumes, or is retried, runs from its start: what was done before is passed over
    by `phase`, `epochs` and `batches`.
    """

    def __init__(self, *arguments: Any, pipeline: Any = None) -> None:
        super().__init__(*arguments)
        self.pipeline = pipeline  # has a state of its own
        self.default_phase = ("train", 0, 0)  # name, epochs, batches an epoch; 0: not known
        self.saves_batches = False
        self._epochs_before = 0  # those done before the phase
        self._loops: list[list[int | None]] = []  # of each `epochs`: its first, and its end
        self.rewind()

    def rewind(self) -> None:
        """Prepare to run the loop from its start."""
        self._phase: PhaseStart | None = None
        self._next_phase = self._next_loop = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what the loop has done, and the pipeline's own state."""
        return {"loops": [[*loop] for loop in self._loops], "own": self.pipeline.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._loops = [[*loop] for loop in state["loops"]]
        self.pipeline.load_state_dict(state["own"])

    @contextmanager
    def own_phase(self, name: str, n_epochs: int = 0, n_batches: int = 0) -> Iterator[None]:
        """Announce a phase around the block; the phase before ends where this one begins.

        If a callback asks for the end of the phase, the block alone ends.
        """
        if self.state.stop:
            raise Stopped
        begun = None
        try:
            begun = self._begin_phase(name, n_epochs, n_batches)
            yield
        except Stopped:
            self._end_phase(begun)
            if self.state.stop:
                raise
            return
        except BaseException as error:
            self._phase = None
            self._break_off(error, 0)
            raise
        self._end_phase(begun)

    def epochs(self, n_epochs: int) -> Iterator[int]:
        """Yield the numbers of the next epochs, at most `n_epochs`, until one is to be the last."""
        state, number = self.state, self._next_loop
        self._next_loop += 1
        if number == len(self._loops):
            self._loops.append([state.epochs, None])
        loop = self._loops[number]
        first, end = loop
        assert first is not None
        if end is not None:  # done before the run was resumed
            return
        try:
            for epoch in range(max(first, state.epochs), first + n_epochs):
                if state.stopped:
                    return
                yield epoch
        finally:
            loop[1] = state.epochs

    def batches(self, n_batches: int) -> Iterator[int]:
        """Yield the numbers of an epoch's batches that are left; checkpoints may be saved here."""
        self.saves_batches = True
        yield from range(self.state.position.batch, n_batches)

    def start_epoch(self, epoch: int) -> None:
        """Begin the epoch number `epoch`, counted from 0 through all phases.

        Raises:
            InputError: if an epoch has begun and not ended, or the epoch of that number was done.
        """
        number, state = operator.index(epoch), self.state
        if self.in_epoch:
            raise InputError(f"epoch {number} begins, but epoch {state.epochs} has not ended")
        if number < state.epochs:
            raise InputError(
                f"epoch {number} begins, but {state.epochs} epochs are done: the epochs of a run "
                "are counted through, and `for epoch in self.epochs(n)` counts them"
            )
        if state.stopped:
            raise Stopped
        if not self._phase:
            self._begin_phase(*self.default_phase)
        batch = state.position.batch if number == state.epochs else 0
        state.epochs = number
        within = number - self._epochs_before
        state.position = replace(state.position, epoch=within, batch=batch)
        self.begin_epoch()

    def end_epoch(self) -> None:
        """End the epoch that has begun.

        Raises:
            InputError: if none has.
        """
        if not self.in_epoch:
            raise InputError(f"an epoch ends, but {_NO_EPOCH}")
        self.saves_batches = False
        # A loop without batches takes one step an epoch, for what goes by steps.
        self.state.step += not self.state.position.batch
        super().end_epoch()

    @contextmanager
    def numbered_epoch(self, epoch: int) -> Iterator[MetricValues]:
        """Begin the epoch of that number, end it after the block; yield its metrics."""
        with self._part(None):
            self.start_epoch(epoch)
            yield self.epoch_metrics
        self.end_epoch()

    @contextmanager
    def batch(self) -> Iterator[MetricValues]:
        """Announce a batch around the block, which sets its metrics.

        Raises:
            InputError: if no epoch has begun.
        """
        if not self.in_epoch:
            raise InputError(f"a batch begins, but {_NO_EPOCH}")
        with super().batch() as metrics:
            yield metrics

    def end_loop(self) -> None:
        """End the phase after the last epoch.

        Raises:
            InputError: if an epoch has begun and not ended.
        """
        self._end_phase(self._phase)

    def _begin_phase(self, name: str, n_epochs: int, n_batches: int) -> PhaseStart | None:
        self._end_phase(self._phase)
        state, number = self.state, self._next_phase
        self._next_phase += 1
        if number < state.position.phase:  # done before the run was resumed
            return None
        if number > state.position.phase:
            state.position, state.stop_phase, state.seconds = Position(number), "", 0.0
        self._epochs_before = state.epochs - state.position.epoch
        n_phases = max(self.n_phases, self._next_phase)
        self._phase = PhaseStart(state.position, name, n_phases, n_epochs, n_batches)
        self.begin(self._phase)
        return self._phase

    def _end_phase(self, phase: PhaseStart | None) -> None:
        """End the phase, unless it has ended before."""
        if not phase or phase is not self._phase:
            return
        state = self.state
        if self.in_epoch:
            hint = "end_epoch() ends it"
            raise InputError(f"{phase.name} ends, but epoch {state.epochs} has not: {hint}")
        self._phase = None
        n_epochs = state.epochs - self._epochs_before
        # A callback may ask for the end of a phase in its last epoch, when it ends anyway.
        if n_epochs == phase.n_epochs:
            state.stop_phase = ""
        reason = state.stop or state.stop_phase or f"{n_epochs} epochs are done"
        status = Status.STOPPED if state.stopped else Status.SUCCESS
        self.finish(PhaseEnd(state.position, phase.name, reason, status))


def _outcome(error: BaseException) -> tuple[Status, str]:
    """Return how what `error` ends has ended, and why."""
    status = Status.FAILED if isinstance(error, Exception) else Status.ABORTED
    return status, f"{type(error).__name__}: {error}"
