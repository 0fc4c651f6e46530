"""Defer Ctrl-C and SIGTERM to the end of a batch, so that a checkpoint can be written first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any, Self

from jemtrack.errors import Interrupted


class Interruption:
    """A context in which the first Ctrl-C or SIGTERM only sets `number`.

    The handlers that were there before are restored at once, so a second signal ends the process
    as usual. Outside the main thread, where Python allows no signal handlers, it does nothing.
    One that is `prompt`, for loops whose batches it cannot see, raises `Interrupted` in the block
    `acting` as soon as a signal arrives.
    """

    def __init__(self, *, prompt: bool = False) -> None:
        self.number = 0  # of the signal that was received
        self._prompt, self._acts = prompt, False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def acting(self) -> AbstractContextManager[None]:
        """Let signals act at once in the block, if the interruption is prompt."""
        return self._setting(self._prompt)

    def held(self) -> AbstractContextManager[None]:
        """Defer a signal to the end of the block, so that every handler receives the event."""
        return self._setting(False) if self._prompt else nullcontext()

    @contextmanager
    def _setting(self, acts: bool) -> Iterator[None]:
        before, self._acts = self._acts, acts
        try:
            yield
        finally:
            self._acts = before
        # Outside of `acting`, whoever entered the context reads `number` instead.
        if acts or before:
            self._raise_if_signalled()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore_handlers()
        if self._acts:
            self._raise_if_signalled()

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _raise_if_signalled(self) -> None:
        if self.number:
            raise Interrupted(self.number)
