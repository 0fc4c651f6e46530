"""Who is told what happens in a training: trackers, which watch, and callbacks, which may act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jemtrack.errors import InputError
from jemtrack.train.components import Component, build
from jemtrack.train.events import Event

if TYPE_CHECKING:  # it imports torch, which listing the components does without
    from jemtrack.train.state import TrainState


Dispatch = Callable[[Event], None]


def dispatch_to_nobody(event: Event) -> None:
    """Serve as `dispatch` outside of a run."""


class Tracker(Component):
    """Is told every event of a run in turn, and closed at its end.

    One that raises is warned about once; training does not depend on it. With `dispatch`, which
    the run sets, it tells the run's trackers and callbacks of what it has seen itself.
    """

    dispatch: Dispatch = staticmethod(dispatch_to_nobody)

    def __call__(self, event: Event) -> None:
        """Take note of `event`."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of files and screens; called once, on every way out."""

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint must hold for the tracker to go on from there: JSON, tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave; called before the first event."""


SaveWeights = Callable[[Path], None]


def nowhere_to_save(path: Path) -> None:
    """Serve as `save_weights` where the run was given none."""
    raise InputError(f"{path} cannot be written: the run was given no function to save weights")


class Callback(Component):
    """Is told every event after the trackers, and may change the state.

    To end the training after the epoch, it writes the reason into `state.stop`; to end the phase
    alone, into `state.stop_phase`. What it raises ends the run as failed. The run sets
    `dispatch`, which tells its trackers and callbacks of what the callback has done,
    `save_weights`, which writes the models to a file, whole or not at all, and `run_folder`,
    in which the callback's own files belong.
    """

    run_folder: Path = Path()
    save_weights: SaveWeights = staticmethod(nowhere_to_save)
    dispatch: Dispatch = staticmethod(dispatch_to_nobody)

    def __call__(self, event: Event, state: TrainState) -> None:
        """Take note of `event`, or act on it."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint must hold for the callback to go on from there: JSON, tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave; called before the first event."""


def build_callback(description: Mapping[str, Any]) -> Callback:
    """Make the callback that a recipe describes: `type` and its options.

    `type` is the name of a registered class whose module was imported, or a dotted path.

    Raises:
        InputError: when there is none, or an option does not fit.
    """
    options = dict(description)
    name = options.pop("type", None)
    if not isinstance(name, str):
        raise InputError(f"a callback must have a `type`, its name or a dotted path, got {name!r}")
    made = build(name, options)
    if not isinstance(made, Callback):
        raise InputError(f"{name} is a {type(made).__name__}, which is no callback")
    return made
