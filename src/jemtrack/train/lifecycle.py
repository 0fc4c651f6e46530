"""The lifecycle of a run: phases, epochs and batches begin, end, are saved, resumed and retried.

The engine's `fit` and the loops of one's own (`Pipeline`) use the same blocks, so that all
events are made here.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from jemtrack.errors import Interrupted, TrainingDivergedError
from jemtrack.events.dispatcher import EventDispatcher
from jemtrack.events.events import (
    BatchEnd,
    BatchStart,
    Diverged,
    EpochEnd,
    EpochStart,
    Event,
    PhaseEnd,
    PhaseStart,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.shared.interruption import Interruption
from jemtrack.shared.metrics import MetricValues
from jemtrack.shared.random_streams import turn_random_state
from jemtrack.train.checkpoint_manager import CheckpointManager
from jemtrack.train.distributed import all_reduce_max, broadcast, rank, world_size
from jemtrack.train.optimizers import scale_learning_rates
from jemtrack.train.recipe import Divergence

T = TypeVar("T")

_NO_RUN = "the run has ended"


class Lifecycle:
    """One run: announces each start and end once, saves, resumes, and retries after divergence.

    A part that breaks off ends as failed or aborted for the trackers alone, and has no metrics.
    Signals wait while events are dispatched. After a batch or an epoch a checkpoint is saved if
    one is due, and a run that a signal has asked to end raises `Interrupted`; all processes of a
    training do so after the same batch.
    """

    NO_EPOCH = "no epoch has begun; run_epoch, `with self.epoch(n):` or start_epoch(n) begins one"

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
        self.epoch_metrics = MetricValues(self.NO_EPOCH)
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
            self.break_off(error)
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
            checkpoints.prepare_retries()
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
        self.break_off(error)
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

    def epoch(self) -> AbstractContextManager[MetricValues]:
        """Announce the epoch at the state's position around the block, which sets its metrics."""
        return self.ending(self.begin_epoch, self.end_epoch)

    @contextmanager
    def ending(self, begin: Callable[[], None], end: Callable[[], None]) -> Iterator[MetricValues]:
        """Make the block an epoch that `begin` begins; `end` ends it unless it breaks off."""
        with self._part(None):
            begin()
            yield self.epoch_metrics
        end()

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
            self.break_off(error, depth)
            raise

    def break_off(self, error: BaseException, depth: int = 0) -> None:
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
        self.epoch_metrics.refusal = self.NO_EPOCH

    def _save_or_stop(self) -> None:
        wish = self._interruption.number or int(self.checkpoints.due())
        wish = all_reduce_max(wish, self.checkpoints.device)
        if wish:
            self.checkpoints.save()
        if wish > 1:
            raise Interrupted(wish)


def _outcome(error: BaseException) -> tuple[Status, str]:
    """Return how what `error` ends has ended, and why."""
    status = Status.FAILED if isinstance(error, Exception) else Status.ABORTED
    return status, f"{type(error).__name__}: {error}"
