"""Defer Ctrl-C and SIGTERM to the end of a batch, so that a checkpoint can be written first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any, Self

from jemtrack.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Ends a loop that continues though a callback asked the run or the phase to end."""


class Interruption:
    """A context in which the first Ctrl-C or SIGTERM only sets `number`.

    The handlers that were there before are restored at once, so a second signal ends the process
    as usual. Outside the main thread, where Python allows no signal handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal that was received
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def acting(self) -> AbstractContextManager[None]:
        """Let signals act at once in the block, if they do not wait for the end of a batch."""
        return nullcontext()

    def held(self) -> AbstractContextManager[None]:
        """Let signals wait in the block, so that events are dispatched whole."""
        return nullcontext()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


class PromptInterruption(Interruption):
    """An interruption for loops without visible batches: within `acting`, signals act at once."""

    def __init__(self) -> None:
        super().__init__()
        self._acts = False

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Raise `Interrupted` in the block as soon as a signal arrives."""
        self._acts = True
        try:
            yield
        finally:
            self._acts = False
        self._raise_if_signalled()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer a signal to the end of the block, so that every handler receives the event."""
        before, self._acts = self._acts, False
        try:
            yield
        finally:
            self._acts = before
        # Outside of `acting`, whoever entered the context reads `number` instead.
        if before:
            self._raise_if_signalled()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        super()._handle(number, frame)
        if self._acts:
            self._raise_if_signalled()

    def _raise_if_signalled(self) -> None:
        if self.number:
            raise Interrupted(self.number)
