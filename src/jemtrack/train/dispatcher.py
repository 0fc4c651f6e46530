"""Every event of a run, to trackers first and then to callbacks; each start has its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jemtrack.train.events import (
    BatchEnd,
    BatchStart,
    EpochEnd,
    EpochStart,
    Event,
    PhaseEnd,
    PhaseStart,
    Status,
)

if TYPE_CHECKING:
    from jemtrack.train.state import TrainState
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from jemtrack.train.events import Metrics, RunEnd
from jemtrack.train.handlers import Callback, Tracker
from jemtrack.train.metrics import check_metrics

if TYPE_CHECKING:  # it imports torch, which a pipeline is declared without
    from jemtrack.train.state import TrainState


_ENDS: dict[type[Event], type[Event]] = {
    PhaseEnd: PhaseStart,
    EpochEnd: EpochStart,
    BatchEnd: BatchStart,
}


class Scopes:
    """Follows the events of a run, and knows what has started and not ended."""

    def __init__(self) -> None:
        self._open: list[Event] = []

    def follow(self, event: Event) -> None:
        """Take note of a start or an end."""
        if isinstance(event, PhaseStart | EpochStart | BatchStart):
            self._open.append(event)
        elif type(event) in _ENDS:
            self._open.pop()

    def close(self, state: TrainState, status: Status, reason: str, keep: int = 0) -> list[Event]:
        """Give the ends of what is open, from the innermost out, for what ends early.

        The outermost `keep` stay open.
        """
        opened, self._open = self._open[keep:], self._open[:keep]
        return [_end(start, state, status, reason) for start in reversed(opened)]


def _end(start: Event, state: TrainState, status: Status, reason: str) -> Event:
    if isinstance(start, BatchStart):
        return BatchEnd(state.position, {}, state.step, status=status)
    if isinstance(start, EpochStart):
        return EpochEnd(state.position, {}, state.epochs, state.step, status)
    assert isinstance(start, PhaseStart)
    return PhaseEnd(state.position, start.name, reason, status)


log = logging.getLogger("jemtrack")


class EventDispatcher:
    """Tells everybody every event once, in turn, and closes the trackers."""

    def __init__(
        self, trackers: Sequence[Tracker], callbacks: Sequence[Callback], state: TrainState
    ) -> None:
        self.trackers = trackers
        self.callbacks = callbacks
        self.state = state
        self.status: Status | None = None  # of the run, once it has ended
        self._scopes = Scopes()
        self._warned = set[int]()
        self._waiting: deque[Event] = deque()
        self._telling = False
        for each in (*trackers, *callbacks):
            each.dispatch = self.dispatch

    def dispatch(self, event: Event) -> None:
        """Tell the trackers, then the callbacks.

        What one of them announces while it is told is told when all have heard the first event.

        Raises:
            InputError: when an epoch has a metric that nobody declared.
        """
        self._waiting.append(event)
        if self._telling:
            return
        self._telling = True
        try:
            while self._waiting:
                self._tell(self._waiting.popleft())
        finally:
            self._telling = False
            self._waiting.clear()

    @contextmanager
    def ending_once(self, metrics: Callable[[], Metrics]) -> Iterator[None]:
        """Dispatch the end of what the body has started, and the run's, on every way out.

        The trackers are closed then, and what was raised goes on. `metrics` gives the run's.
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
            self.dispatch_ends(status, reason)
            self.notify_trackers(RunEnd(status, metrics()))
            self.close()

    def dispatch_ends(self, status: Status, reason: str, keep: int = 0) -> None:
        """Tell the trackers the end of all that has started but for the outermost `keep`."""
        for event in self._scopes.close(self.state, status, reason, keep):
            self.notify_trackers(event)

    def notify_trackers(self, event: Event) -> None:
        """Tell the trackers alone; one that fails is warned about once."""
        for tracker in self.trackers:
            try:
                tracker(event)
            except Exception as error:
                self._warn(tracker, error)

    def close(self) -> None:
        """Close the trackers."""
        for tracker in reversed(self.trackers):
            try:
                tracker.close()
            except Exception as error:
                self._warn(tracker, error)

    def _tell(self, event: Event) -> None:
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
    """Say how what `error` ends has ended, and why."""
    status = Status.FAILED if isinstance(error, Exception) else Status.ABORTED
    return status, f"{type(error).__name__}: {error}"
