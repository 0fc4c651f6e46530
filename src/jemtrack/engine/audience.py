"""Who is told what happens in a run: listeners first, then callbacks."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jemtrack.engine.callbacks import Callback
from jemtrack.engine.events import EpochEnd, Event, Metrics, RunEnd, Status
from jemtrack.engine.listeners import Listener
from jemtrack.engine.metrics import check_metrics
from jemtrack.engine.scopes import Scopes

if TYPE_CHECKING:  # it imports torch, which a pipeline is declared without
    from jemtrack.engine.state import TrainState

log = logging.getLogger("jemtrack")


class Audience:
    """Tells everybody every event once, in turn, and closes the listeners."""

    def __init__(
        self, listeners: Sequence[Listener], callbacks: Sequence[Callback], state: TrainState
    ) -> None:
        self.listeners = listeners
        self.callbacks = callbacks
        self.state = state
        self.status: Status | None = None  # of the run, once it has ended
        self._scopes = Scopes()
        self._warned = set[int]()
        self._waiting: deque[Event] = deque()
        self._telling = False
        for each in (*listeners, *callbacks):
            each.announce = self.announce

    def announce(self, event: Event) -> None:
        """Tell the listeners, then the callbacks.

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
    def until_end(self, metrics: Callable[[], Metrics]) -> Iterator[None]:
        """Announce the end of what the body has started, and the run's, on every way out.

        The listeners are closed then, and what was raised goes on. `metrics` gives the run's.
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
            self.announce_ends(status, reason)
            self.tell_listeners(RunEnd(status, metrics()))
            self.close()

    def announce_ends(self, status: Status, reason: str, keep: int = 0) -> None:
        """Tell the listeners the end of all that has started but for the outermost `keep`."""
        for event in self._scopes.close(self.state, status, reason, keep):
            self.tell_listeners(event)

    def tell_listeners(self, event: Event) -> None:
        """Tell the listeners alone; one that fails is warned about once."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception as error:
                self._warn(listener, error)

    def close(self) -> None:
        """Close the listeners."""
        for listener in reversed(self.listeners):
            try:
                listener.close()
            except Exception as error:
                self._warn(listener, error)

    def _tell(self, event: Event) -> None:
        self._scopes.follow(event)
        if isinstance(event, EpochEnd):
            check_metrics(event.metrics)
        self.tell_listeners(event)
        for callback in self.callbacks:
            callback(event, self.state)

    def _warn(self, listener: Listener, error: Exception) -> None:
        if id(listener) not in self._warned:
            self._warned.add(id(listener))
            name = type(listener).__name__
            log.warning(f"{name} failed and may lack a part of the run: {error!r}")


def outcome(error: BaseException) -> tuple[Status, str]:
    """Say how what `error` ends has ended, and why."""
    status = Status.FAILED if isinstance(error, Exception) else Status.ABORTED
    return status, f"{type(error).__name__}: {error}"
