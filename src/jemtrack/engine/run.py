"""A run: a training before its listeners, announced once and ended once."""

from collections.abc import Iterable
from contextlib import ExitStack

from jemtrack.engine.events import EpochEnd, Event, RunEnd, RunStart
from jemtrack.engine.listeners import Listener
from jemtrack.engine.loop import fit
from jemtrack.engine.phase import Phase
from jemtrack.engine.state import TrainState


def run(
    start: RunStart, state: TrainState, phase: Phase, listeners: Iterable[Listener]
) -> dict[str, float]:
    """Train, telling every event to each listener in turn; give the last epoch's metrics.

    Every way out announces the end once, closes the listeners and raises what was raised.
    """
    listeners = [*listeners]
    metrics: dict[str, float] = {}
    status = "failed"

    def announce(event: Event) -> None:
        for listener in listeners:
            listener(event)

    with ExitStack() as closing:
        for listener in listeners:
            closing.callback(listener.close)
        announce(start)
        try:
            for event in fit(state, phase):
                if isinstance(event, EpochEnd):
                    metrics = dict(event.metrics)
                announce(event)
            status = "success"
        finally:
            announce(RunEnd(status, metrics))
    return metrics
