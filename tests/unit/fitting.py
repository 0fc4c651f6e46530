"""A phase trained by itself, and the events of it."""

from collections.abc import Callable

from jemtrack.events.dispatcher import EventDispatcher
from jemtrack.events.events import Event
from jemtrack.events.handlers import Callback, Recorder
from jemtrack.shared.interruption import Interruption
from jemtrack.train.checkpoint_manager import CheckpointManager
from jemtrack.train.lifecycle import Lifecycle
from jemtrack.train.loop import fit
from jemtrack.train.optimizers import learning_rates
from jemtrack.train.phase import Phase
from jemtrack.train.state import TrainState


class Cut(Exception):  # noqa: N818
    pass


class CutOff(Callback):
    def __init__(self, when: Callable[[Event, TrainState], bool]) -> None:
        self.when = when

    def __call__(self, event: Event, state: TrainState) -> None:
        if self.when(event, state):
            raise Cut


class Watch(Recorder):
    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


def rates_at(kind: type[Event], state: TrainState, phase: Phase, optimizer: str) -> list[float]:
    """Train the phase; return an optimizer's learning rate at each event of that kind."""
    rates = []

    def look(event: Event, state: TrainState) -> bool:
        if isinstance(event, kind):
            rates.append(learning_rates(state.optimizers)[optimizer])
        return False

    fitted(state, phase, look)
    return rates


def fitted(
    state: TrainState, phase: Phase, cut: Callable[[Event, TrainState], bool] | None = None
) -> list[Event]:
    """Train the phase, which the state has entered, to its end or to where it is cut."""
    record, callbacks = Watch(), [CutOff(cut)] if cut else []
    dispatcher = EventDispatcher([record], callbacks, state)
    manager = CheckpointManager(None, state, phases=[phase])
    try:
        fit(Lifecycle(dispatcher, manager, Interruption()), phase)
    except Cut:
        assert cut
    return record.events
