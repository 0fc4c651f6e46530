"""Dispatch the events of a run to trackers first and then to callbacks; each start gets its end."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jemtrack.train.events import (
    BatchEnd,
    BatchStart,
    EpochEnd,
    EpochStart,
    Event,
    Metrics,
    PhaseEnd,
    PhaseStart,
    RunEnd,
    Status,
)
from jemtrack.train.handlers import Callback, Tracker
from jemtrack.train.metrics import check_metrics

if TYPE_CHECKING:  # `train.state` imports torch, which declaring a pipeline does not need
    from jemtrack.train.state import TrainState

log = logging.getLogger("jemtrack")


class Scopes:
    """The stack of phase, epoch and batch that have started and not ended."""

    def __init__(self) -> None:
        self._open: list[Event] = []

    def follow(self, event: Event) -> None:
        """Push a start, pop at an end, and ignore all other events."""
        if isinstance(event, PhaseStart | EpochStart | BatchStart):
            self._open.append(event)
        elif isinstance(event, PhaseEnd | EpochEnd | BatchEnd):
            self._open.pop()

    def close(self, state: TrainState, status: Status, reason: str, keep: int = 0) -> list[Event]:
        """Pop all but the outermost `keep`; return their end events, the innermost first."""
        opened, self._open = self._open[keep:], self._open[:keep]
        return [_end_event(start, state, status, reason) for start in reversed(opened)]


def _end_event(start: Event, state: TrainState, status: Status, reason: str) -> Event:
    if isinstance(start, BatchStart):
        return BatchEnd(state.position, {}, state.step, status=status)
    if isinstance(start, EpochStart):
        return EpochEnd(state.position, {}, state.epochs, state.step, status)
    assert isinstance(start, PhaseStart)
    return PhaseEnd(state.position, start.name, reason, status)


class EventDispatcher:
    """Sends every event to all trackers and callbacks, in order, and closes the trackers."""

    def __init__(
        self, trackers: Sequence[Tracker], callbacks: Sequence[Callback], state: TrainState
    ) -> None:
        self.trackers = trackers
        self.callbacks = callbacks
        self.state = state
        self.status: Status | None = None  # of the run, after its end
        self._scopes = Scopes()
        self._warned = set[int]()
        self._queue: deque[Event] = deque()
        self._is_dispatching = False
        for handler in (*trackers, *callbacks):
            handler.dispatch = self.dispatch

    def dispatch(self, event: Event) -> None:
        """Send `event` to the trackers, then to the callbacks.

        If a handler dispatches an event itself, all handlers receive the first event before the
        second one, so that all see the same order.

        Raises:
            InputError: if the end of an epoch has a metric that was not declared.
        """
        self._queue.append(event)
        if self._is_dispatching:
            return
        self._is_dispatching = True
        try:
            while self._queue:
                self._send(self._queue.popleft())
        finally:
            self._is_dispatching = False
            self._queue.clear()

    @contextmanager
    def ending_once(self, metrics: Callable[[], Metrics]) -> Iterator[None]:
        """Send the end of the run, and of all that is still open in it, however the block ends.

        Then the trackers are closed, and an exception propagates. `metrics` returns the metrics
        of the run.
        """
        status, reason = Status.FAILED, ""
        try:
            yield
            status = Status.STOPPED if self.state.stopped else Status.SUCCESS
        except BaseException as error:
            status, reason = outcome(error)
            raise
        finally:
            self.status = status
            # To trackers only: a callback could act on a training that has failed.
            self.dispatch_ends(status, reason)
            self.notify_trackers(RunEnd(status, metrics()))
            self.close()

    def dispatch_ends(self, status: Status, reason: str, keep: int = 0) -> None:
        """Send the trackers the end of all that is open except the outermost `keep`."""
        for event in self._scopes.close(self.state, status, reason, keep):
            self.notify_trackers(event)

    def notify_trackers(self, event: Event) -> None:
        """Send `event` to the trackers only; log a warning the first time that one fails."""
        for tracker in self.trackers:
            try:
                tracker(event)
            except Exception as error:
                self._warn(tracker, error)

    def close(self) -> None:
        """Close the trackers, the last one first."""
        for tracker in reversed(self.trackers):
            try:
                tracker.close()
            except Exception as error:
                self._warn(tracker, error)

    def _send(self, event: Event) -> None:
        self._scopes.follow(event)
        if isinstance(event, EpochEnd):
            check_metrics(event.metrics)
        self.notify_trackers(event)
        for callback in self.callbacks:
            callback(event, self.state)

    def _warn(self, tracker: Tracker, error: Exception) -> None:
        if id(tracker) not in self._warned:
            self._warned.add(id(tracker))
            name = type(tracker).__name__
            log.warning(f"{name} failed and may lack a part of the run: {error!r}")


def outcome(error: BaseException) -> tuple[Status, str]:
    """Return the status of what `error` has ended, and the reason, a sentence."""
    # KeyboardInterrupt, which a signal raises, is not an `Exception`.
    status = Status.FAILED if isinstance(error, Exception) else Status.ABORTED
    return status, f"{type(error).__name__}: {error}"
