"""A person's or the cluster's wish that training ends, heard between two batches."""

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
    """While it is entered, Ctrl-C and SIGTERM are noted once; a second one acts at once.

    In any thread but the main one, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal that came
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def acting(self) -> AbstractContextManager[None]:
        """Let signals act at once in the block, if they do not wait for the end of a batch."""
        return nullcontext()

    def held(self) -> AbstractContextManager[None]:
        """Let signals wait in the block, so that events are dispatched whole."""
        return nullcontext()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class PromptInterruption(Interruption):
    """For loops whose batches nobody sees: inside of `acting`, a signal raises `Interrupted`."""

    def __init__(self) -> None:
        super().__init__()
        self._acts = False

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Let signals act at once in the body."""
        self._acts = True
        try:
            yield
        finally:
            self._acts = False
        self._raise()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let a signal in the body act after it, so that what is told is told whole."""
        before, self._acts = self._acts, False
        try:
            yield
        finally:
            self._acts = before
        if before:
            self._raise()

    def _note(self, number: int, frame: FrameType | None) -> None:
        super()._note(number, frame)
        if self._acts:
            self._raise()

    def _raise(self) -> None:
        if self.number:
            raise Interrupted(self.number)
