"""The event handlers of a run: recorders and trackers only watch it, callbacks may act."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jemtrack.errors import InputError
from jemtrack.events.events import Event
from jemtrack.shared.components import Component, build

if TYPE_CHECKING:  # `train.state` imports torch, which `jemtrack components` does not need
    from jemtrack.train.state import TrainState


Dispatch = Callable[[Event], None]


def no_dispatch(event: Event) -> None:
    """Ignore `event`: the `dispatch` of a handler outside of a run."""


class EventHandler(Component):
    """Receives every event of a run, to store or show it; it cannot change the training."""

    # A static method, so that Python does not pass the instance to it.
    dispatch: Dispatch = staticmethod(no_dispatch)

    def __call__(self, event: Event) -> None:
        """Store or show `event`."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files and screens; called once, however the run ends."""

    def state_dict(self) -> dict[str, Any]:
        """Return the handler's state for a checkpoint: values that JSON has, and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; called before the first event."""


class Recorder(EventHandler):
    """Writes a result of the run, in the training's thread: its exception ends the run."""

    def files(self) -> Sequence[Path]:
        """List the files that trackers may keep with a run that succeeded."""
        return ()


class Tracker(EventHandler):
    """Watches a run, from a process of its own: nothing that it does reaches the training.

    That process builds the tracker again from its options. If the tracker raises an exception, or
    does not answer in time, it is left alone and the run logs one warning. Its state is asked for
    every two seconds or so, when it has handled what it was sent.

    A tracker that is `live` shows or measures the process of the training itself. It is called
    there and in the training's thread, may send its own events by `dispatch`, and has no state.
    """

    live: bool = False

    def __reduce__(self) -> Any:
        """Pickle the class and the options alone."""
        chosen = {option.name: getattr(self, option.name) for option in self.options()}
        return _built, (type(self), chosen)


def _built(cls: type[Tracker], options: dict[str, Any]) -> Tracker:
    return cls(**options)


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
