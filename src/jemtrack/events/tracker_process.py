"""Trackers in processes of their own, so that nothing they do can reach the training.

The training's thread only appends events to a queue. A thread for each tracker sends them on, every
two seconds, and takes back the state that the tracker hands over. Python and PyTorch share random
streams, the default dtype, the number of threads and more among all threads of a process: only
another process keeps them apart. It can also be killed, which a call that hangs cannot.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, fields, replace
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_type_hints

from jemtrack.errors import InputError
from jemtrack.events import events
from jemtrack.events.events import (
    BatchEnd,
    BatchStart,
    Diverged,
    Event,
    Measured,
    Position,
    RunStart,
    Status,
)
from jemtrack.events.handlers import Tracker

log = logging.getLogger("jemtrack")

_PAUSE_SECONDS = 2.0  # between two exchanges with a tracker
_CALL_SECONDS = 60.0  # for an exchange; the first one includes the imports of the tracker's tool
CLOSE_SECONDS = 20.0  # for all trackers together, once the training has ended
_PATIENCE_SECONDS = 3.0  # before the user is told what the training waits for
_EXIT_SECONDS = 2.0  # for a process whose tracker is closed
_QUEUE_SIZE = 10_000  # events; beyond it, those of batches are dropped
_EXCHANGED = 1000  # events in an exchange, at most
_CODE = """
import sys
sys.path[:] = {path!r}
from jemtrack.events.tracker_process import serve
serve({handle})
"""
# A kill while these wait in the queue must not lose them: checkpoints hold them. The start of a run
# is made anew by each session.
_KINDS = {
    kind.__name__: kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind not in {Event, RunStart}
}


class TrackerProcess:
    """Stands for `tracker`, which gets the events of the run in a process of its own.

    Events leave the queue once the tracker has handled them and handed over its state. A session
    that resumes starts the tracker there: with a `RunStart` of that step, and the events that were
    in the queue. A run that is `recorded` can be replayed to a tracker that lacks a part of it.

    Raises:
        InputError: if the tracker cannot be built in another process.
    """

    def __init__(self, tracker: Tracker, *, recorded: bool = True) -> None:
        self.recorded = recorded
        self.name = type(tracker).__name__
        self._tracker = _pickled(tracker)
        self._saved: dict[str, Any] = {}  # of the session before
        self._state: dict[str, Any] | None = None  # what the tracker handed over last
        self._queue: deque[Event] = deque()
        self._at = Position(), 0, 0  # position, epoch and step of what has left the queue
        self._lost = 0  # events that were never sent
        self._failed = self._closing = False
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def __call__(self, event: Event) -> None:
        """Queue `event`; never wait, and never raise an exception."""
        with self._changed:
            if isinstance(event, RunStart):
                event = self._start(event)
            full = len(self._queue) >= _QUEUE_SIZE
            if self._failed or (full and isinstance(event, BatchStart | BatchEnd | Measured)):
                self._lost += 1
                self._leave(event)
                return
            self._queue.append(event)
            if isinstance(event, RunStart):
                self._queue.extend(map(_from_plain, self._saved.get("queue", ())))

    def state_dict(self) -> dict[str, Any]:
        """Return what the tracker handed over last, and what it has not handled yet."""
        with self._changed:
            position, epoch, step = self._at
            return {
                "tracker": self._state,
                "at": [astuple(position), epoch, step],
                "queue": [_to_plain(each) for each in self._queue if type(each) in _KINDS.values()],
                "lost": self._lost,
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        position, epoch, step = state["at"]
        self._at = Position(*position), epoch, step
        self._saved, self._state, self._lost = state, state["tracker"], state["lost"]

    def finish(self) -> None:
        """Let the tracker close once it has handled all events; do not wait for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def wait(self, until: float) -> None:
        """Wait for the tracker to close, at most until that time; then end its process."""
        if self._thread.ident is None:
            return
        left = max(0.0, until - time.monotonic())
        self._thread.join(min(left, _PATIENCE_SECONDS))
        if self._thread.is_alive() and left > _PATIENCE_SECONDS:
            log.info(f"the training has ended; waiting up to {left:.0f} s for {self.name}")
            self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._fail("it did not finish in time")
            if self._process:
                self._process.kill()
            self._thread.join(_EXIT_SECONDS)
        elif self._lost and not self._failed:
            self._warn(f"lacks {self._lost} events of the run")

    def _start(self, event: RunStart) -> RunStart:
        """Return the start of the run as it is for this tracker; begin to send events."""
        if self._saved:
            position, epoch, step = self._at
            event = replace(event, position=position, epoch=epoch, step=step)
        if self._thread.ident is None:
            self._thread.start()
        return event

    def _run(self) -> None:
        """Send events until the run ends, or until the tracker fails."""
        # Signals are for the training; the process that starts here inherits that they wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            with self._started() as connection:
                connection.send_bytes(self._tracker)
                connection.send(self._saved.get("tracker"))
                while (sent := self._next()) is not None:
                    self._handled(len(sent), _exchange(connection, sent))
                _exchange(connection, None)
        except TimeoutError:
            self._fail(f"a call took longer than {_CALL_SECONDS:g} s")
        except (EOFError, OSError):
            self._fail("its process ended")
        except Exception as error:
            self._fail(str(error))

    @contextmanager
    def _started(self) -> Iterator[Connection]:
        ours, theirs = Pipe()
        code = _CODE.format(path=sys.path, handle=theirs.fileno())
        with ours:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # its troubles are told by the one warning
                    pass_fds=[theirs.fileno()],
                )
            try:
                yield ours
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_EXIT_SECONDS)
            finally:
                self._process.kill()
                self._process.wait()

    def _next(self) -> list[Event] | None:
        """Wait for what is to be sent next; None: nothing, for the run has ended."""
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: self._closing or len(self._queue) >= _EXCHANGED, _PAUSE_SECONDS
                )
                if self._queue:
                    return [*islice(self._queue, _EXCHANGED)]
                if self._closing:
                    return None

    def _handled(self, n_events: int, state: dict[str, Any]) -> None:
        from jemtrack.shared.serialization import to_bytes

        if state:
            to_bytes(state)  # raises an exception here, and not when a checkpoint is saved
        with self._changed:
            if self._failed:  # it was given up meanwhile
                return
            self._state = state
            for _ in range(n_events):
                self._leave(self._queue.popleft())

    def _leave(self, event: Event) -> None:
        """Note how far the run was at `event`, which has left the queue."""
        position, epoch, step = self._at
        reached = "back_to" if isinstance(event, Diverged) else "position"
        self._at = (
            getattr(event, reached, position),
            getattr(event, "epoch", epoch),
            getattr(event, "step", step),
        )

    def _fail(self, reason: str) -> None:
        """Leave the tracker alone from now on, and warn of it once."""
        with self._changed:
            if self._failed:
                return
            self._failed = True
            step = self._at[2]
            self._lost += len(self._queue)
            while self._queue:
                self._leave(self._queue.popleft())
        self._warn(f"gets nothing of the run after step {step}: {reason}")

    def _warn(self, what: str) -> None:
        hint = "when the training has ended, `jemtrack replay` sends it the whole record"
        log.warning(f"{self.name} {what}; {hint}" if self.recorded else f"{self.name} {what}")


def _pickled(tracker: Tracker) -> bytes:
    kind = type(tracker)
    if kind.__module__ == "__main__":
        problem = "is defined in the program that runs"
    else:
        try:
            return pickle.dumps(tracker)
        except Exception as error:
            problem = f"cannot be built in another process ({error})"
    raise InputError(
        f"the tracker {kind.__name__} {problem}: define it in a module, with `Option`s alone, "
        "or set `live = True` in it"
    )


def _exchange(connection: Connection, sent: list[Event] | None) -> Any:
    """Let the tracker handle events, or close; return the state that it hands over.

    Raises:
        TimeoutError: if it takes too long.
        RuntimeError: if the tracker raised an exception, with its text.
        EOFError: if its process has ended.
    """
    connection.send(sent)
    if not connection.poll(_CALL_SECONDS):
        raise TimeoutError
    problem, state = connection.recv()
    if problem:
        raise RuntimeError(problem)
    return state


def serve(handle: int) -> None:
    """Call a tracker in this process, which ends with the training, however that ends."""
    connection = Connection(handle)
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, received), daemon=True).start()
    problem = None
    try:
        for state in _states(received):
            connection.send((None, state))
    except BaseException as error:
        problem = one_line(error)
    with suppress(OSError):  # the training's process has ended
        connection.send((problem, None))


def _receive(connection: Connection, received: queue.SimpleQueue[Any]) -> None:
    """Pass messages on; end the process when the training's has ended, also in a call."""
    try:
        received.put(connection.recv_bytes())
        while True:
            received.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)


def _states(received: queue.SimpleQueue[Any]) -> Iterator[dict[str, Any]]:
    """Build the tracker; yield its state each time that it has handled what was received."""
    tracker: Tracker = pickle.loads(received.get())
    if (state := received.get()) is not None:
        tracker.load_state_dict(state)
    while (found := received.get()) is not None:
        for event in found:
            tracker(event)
        yield tracker.state_dict()
    tracker.close()


def one_line(error: BaseException) -> str:
    """Return an error as one line, not too long."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) < 300 else f"{text[:300]} ..."


def _to_plain(event: Event) -> dict[str, Any]:
    """Return an event as what a checkpoint can hold."""
    plain = {each.name: getattr(event, each.name) for each in fields(event)}
    for name, value in plain.items():
        if isinstance(value, Position):
            plain[name] = astuple(value)
        elif isinstance(value, Path | Status):
            plain[name] = str(value)
    return {"kind": type(event).__name__, "fields": plain}


def _from_plain(plain: dict[str, Any]) -> Event:
    kind = _KINDS[plain["kind"]]
    hints = get_type_hints(kind)
    values = dict(plain["fields"])
    for name, value in values.items():
        if hints[name] is Position:
            values[name] = Position(*value)
        elif hints[name] in {Path, Status}:
            values[name] = hints[name](value)
    event: Event = kind(**values)
    return event
