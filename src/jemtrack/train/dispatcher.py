"""Dispatch each event of a run once: to the trackers first, then to the callbacks."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jemtrack.shared.metrics import check_metrics
from jemtrack.train.events import EpochEnd, Event, Status
from jemtrack.train.handlers import Callback, Tracker

if TYPE_CHECKING:  # it imports torch, which a pipeline is declared without
    from jemtrack.train.state import TrainState

log = logging.getLogger("jemtrack")


class EventDispatcher:
    """Dispatches events in order, and closes the trackers at the end."""

    def __init__(
        self, trackers: Sequence[Tracker], callbacks: Sequence[Callback], state: TrainState
    ) -> None:
        self.trackers = trackers
        self.callbacks = callbacks
        self.state = state
        self.status: Status | None = None  # of the run, once it has ended
        self._warned = set[int]()
        self._waiting: deque[Event] = deque()
        self._dispatching = False
        for each in (*trackers, *callbacks):
            each.dispatch = self.dispatch

    def dispatch(self, event: Event) -> None:
        """Notify the trackers, then the callbacks.

        An event that a handler dispatches in turn waits until all have seen the first one.

        Raises:
            InputError: if an epoch has a metric that nobody declared.
        """
        self._waiting.append(event)
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._waiting:
                self._dispatch(self._waiting.popleft())
        finally:
            self._dispatching = False
            self._waiting.clear()

    def notify_trackers(self, event: Event) -> None:
        """Notify the trackers alone; warn once of each that fails."""
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

    def _dispatch(self, event: Event) -> None:
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
