"""Save the state of a run to its checkpoints, and restore it, in all processes alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jemtrack.errors import InputError
from jemtrack.train.checkpoint import Checkpoints, InMemory
from jemtrack.train.distributed import from_first, gathered, is_first, n_processes, process_number
from jemtrack.train.handlers import Callback, Listener
from jemtrack.train.loop import weights_are_finite
from jemtrack.train.phase import Phase
from jemtrack.train.state import TrainState


@dataclass
class Snapshots:
    """Takes a run's state to `kept`, and brings it back, in all processes alike.

    The first process alone has something in `kept`, and listeners.
    """

    kept: Checkpoints | InMemory | None
    state: TrainState
    phases: Sequence[Phase]
    callbacks: Sequence[Callback]
    listeners: Sequence[Listener]

    def due(self) -> bool:
        """Say whether it is time for the next one."""
        return is_first() and self.kept is not None and self.kept.due(self.state.step)

    def newest(self) -> Any | None:
        """Give the last one, or None."""
        return from_first(self.kept.load() if self.kept and is_first() else None)

    def take(self, run_id: str) -> None:
        """Keep the state as it is now."""
        if self.kept is None and n_processes() == 1:
            return
        # Who went back to weights that are not finite would never get away from them.
        if not weights_are_finite(self.state):
            return
        state = self.state.state_dict(self.phases[self.state.position.phase])
        # These are each process's own; all else is the same in all.
        own = gathered({"random": state.pop("random"), "objective": state.pop("objective")})
        if self.kept is None or not is_first():
            return
        tree = {
            "run_id": run_id,
            "state": state,
            "processes": own,
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "listeners": {
                name: listener.state_dict() for name, listener in _named(self.listeners).items()
            },
        }
        self.kept.save(tree, self.state.step)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Put models, optimizers, random streams, callbacks and all else back.

        Raises:
            InputError: when it is of another number of processes.
        """
        own = saved["processes"]
        if len(own) != n_processes():
            raise InputError(
                f"the checkpoint is of {len(own)} processes, and cannot go on in {n_processes()}"
            )
        state = saved["state"] | own[process_number()]
        self.state.load_state_dict(state, self.phases[state["position"][0]])
        for callback, kept in zip(self.callbacks, saved["callbacks"], strict=True):
            callback.load_state_dict(kept)

    def restore_listeners(self, saved: Mapping[str, Any]) -> None:
        """Put those listeners back that were there when the state was kept."""
        for name, listener in _named(self.listeners).items():
            if name in saved["listeners"]:
                listener.load_state_dict(saved["listeners"][name])


def _named(listeners: Sequence[Listener]) -> dict[str, Listener]:
    """Name each listener so that others may come after it, or go, before the run goes on."""
    named: dict[str, Listener] = {}
    for listener in listeners:
        kind = type(listener).__name__
        number = sum(type(other) is type(listener) for other in named.values()) + 1
        named[f"{kind} {number}" if number > 1 else kind] = listener
    return named
