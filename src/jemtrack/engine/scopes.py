"""Which parts of a run are open, so that each one's end is announced once on every way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jemtrack.engine.events import (
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
    from jemtrack.engine.state import TrainState

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
