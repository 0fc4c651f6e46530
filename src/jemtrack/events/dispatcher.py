"""Dispatch each event of a run once: to recorders and trackers first, then to the callbacks."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from jemtrack.events.events import ArtifactSaved, EpochEnd, Event, Metrics, RunEnd, RunStart, Status
from jemtrack.events.handlers import Callback, EventHandler, Recorder, Tracker
from jemtrack.events.tracker_process import CLOSE_SECONDS, TrackerProcess
from jemtrack.shared.metrics import check_metrics
from jemtrack.shared.plain import plain

if TYPE_CHECKING:  # it imports torch, which a pipeline is declared without
    from jemtrack.train.state import TrainState

log = logging.getLogger("jemtrack")

_BROKEN = {Status.FAILED, Status.ABORTED}


class EventDispatcher:
    """Dispatches events in order, and closes recorders and trackers at the end.

    Recorders and live trackers are called here, in the training's thread; the other trackers have
    processes of their own.

    Raises:
        InputError: if a tracker cannot be built in another process.
    """

    def __init__(
        self,
        handlers: Sequence[EventHandler],
        callbacks: Sequence[Callback],
        state: TrainState,
    ) -> None:
        self.recorders = [each for each in handlers if isinstance(each, Recorder)]
        trackers = [each for each in handlers if isinstance(each, Tracker)]
        self.live = [each for each in trackers if each.live]
        self.processes = [
            TrackerProcess(each, recorded=bool(self.recorders))
            for each in trackers
            if not each.live
        ]
        self.callbacks = callbacks
        self.state = state
        self.status: Status | None = None  # of the run, once it has ended
        self._failed: list[EventHandler] = []
        self._waiting: deque[Event] = deque()
        self._dispatching = False
        for each in (*self.recorders, *self.live, *callbacks):
            each.dispatch = self.dispatch

    @property
    def stateful(self) -> dict[str, Any]:
        """What has a state for checkpoints, by names that a later session finds again."""
        named: dict[str, Any] = {}
        for each in (*self.recorders, *self.processes):
            kind = each.name if isinstance(each, TrackerProcess) else type(each).__name__
            number = 1 + sum(name.split()[0] == kind for name in named)
            named[f"{kind} {number}" if number > 1 else kind] = each
        return named

    def dispatch(self, event: Event) -> None:
        """Notify recorders and trackers, then the callbacks.

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
        """Notify recorders and trackers alone; a tracker that fails is left alone, with a warning.

        So is a recorder that fails at the end of what has failed itself: that error is the one to
        raise.
        """
        event = _with_plain_values(event)
        self._send(event)
        for each in (*self.recorders, *self.live):
            if each in self._failed:
                continue
            try:
                each(event)
            except Exception as error:
                self._failed.append(each)
                if isinstance(each, Recorder) and getattr(event, "status", None) not in _BROKEN:
                    raise
                self._warn(each, error)

    def end(self, event: RunEnd) -> None:
        """Notify recorders and trackers of the end of the run, and close them, the last one first.

        All trackers together have `CLOSE_SECONDS` for what is left to do.
        """
        self.status = event.status
        try:
            self.notify_trackers(event)
            if event.status not in _BROKEN:
                for path in (path for each in self.recorders for path in each.files()):
                    self._send(ArtifactSaved(path, "results"))
        finally:
            until = time.monotonic() + CLOSE_SECONDS
            for process in self.processes:
                process.finish()
            for each in (*reversed(self.live), *reversed(self.recorders)):
                try:
                    each.close()
                except Exception as error:
                    if each not in self._failed:
                        self._warn(each, error)
            for process in self.processes:
                process.wait(until)

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, EpochEnd):
            check_metrics(event.metrics)
        self.notify_trackers(event)
        for callback in self.callbacks:
            callback(event, self.state)

    def _send(self, event: Event) -> None:
        for process in self.processes:
            process(event)

    def _warn(self, handler: EventHandler, error: Exception) -> None:
        name = type(handler).__name__
        log.warning(f"{name} failed and gets nothing more of the run: {error!r}")


def _with_plain_values(event: Event) -> Event:
    """Copy the mappings of an event: tensors and whatever else may change become plain values."""
    changed: dict[str, Any] = {
        each.name: _numbers(value)
        for each in fields(event)
        if isinstance(value := getattr(event, each.name), Mapping) and each.name != "parameters"
    }
    if isinstance(event, RunStart):
        changed["parameters"] = plain(event.parameters)
    return replace(event, **changed) if changed else event


def _numbers(metrics: Metrics) -> dict[str, float]:
    return {
        name: value if type(value) in {int, float} else float(value)
        for name, value in metrics.items()
    }
