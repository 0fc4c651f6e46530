"""The event handlers of a run: trackers, which only watch, and callbacks, which may act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jemtrack.errors import InputError
from jemtrack.shared.components import Component, build
from jemtrack.train.events import Event

if TYPE_CHECKING:  # `train.state` imports torch, which `jemtrack components` does not need
    from jemtrack.train.state import TrainState


Dispatch = Callable[[Event], None]


def no_dispatch(event: Event) -> None:
    """Ignore `event`: the `dispatch` of a handler outside of a run."""


class Tracker(Component):
    """Receives every event of a run, to show or store it; a tracker cannot change the training.

    If a tracker raises an exception, the run logs a warning once and continues. The run sets
    `dispatch`, with which a tracker can send its own events to all trackers and callbacks.
    """

    # A static method, so that Python does not pass the instance to it.
    dispatch: Dispatch = staticmethod(no_dispatch)

    def __call__(self, event: Event) -> None:
        """Show or store `event`."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files and screens; called once, however the run ends."""

    def state_dict(self) -> dict[str, Any]:
        """Return the tracker's state for a checkpoint: values that JSON has, and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; called before the first event."""


SaveWeights = Callable[[Path], None]


def cannot_save(path: Path) -> None:
    """Raise an `InputError`: the `save_weights` of a run that has no such function."""
    raise InputError(f"{path} cannot be written: pass the run a function `save_weights`")


class Callback(Component):
    """Receives every event after the trackers, and may change the state of the training.

    To end the training after the epoch, it writes the reason into `state.stop`; to end only the
    phase, into `state.stop_phase`. An exception of a callback ends the run as failed. The run
    sets `dispatch`, with which the callback sends its own events to all trackers and callbacks;
    `save_weights`, an atomic write of the models to a file; and `run_folder`, the folder for the
    callback's files.
    """

    run_folder: Path = Path()
    save_weights: SaveWeights = staticmethod(cannot_save)
    dispatch: Dispatch = staticmethod(no_dispatch)

    def __call__(self, event: Event, state: TrainState) -> None:
        """Record `event`, or act on it."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the callback's state for a checkpoint: values that JSON has, and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; called before the first event."""


def build_callback(description: Mapping[str, Any]) -> Callback:
    """Build the callback that a recipe describes by its `type` and its options.

    `type` is the name of a registered class whose module was imported, or a dotted path.

    Raises:
        InputError: if there is no such class, it is not a callback, or an option does not fit.
    """
    options = dict(description)
    name = options.pop("type", None)
    if not isinstance(name, str):
        raise InputError(f"a callback must have a `type`, its name or a dotted path, got {name!r}")
    callback = build(name, options)
    if not isinstance(callback, Callback):
        raise InputError(f"{name} is a {type(callback).__name__}, which is not a callback")
    return callback
