"""Save the state of a run to its checkpoints, and restore it in all processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jemtrack.errors import InputError
from jemtrack.train.checkpoint import Checkpoints, MemoryCheckpoint
from jemtrack.train.distributed import (
    broadcast,
    gather_to_rank_zero,
    is_rank_zero,
    rank,
    world_size,
)
from jemtrack.train.handlers import Callback, Tracker
from jemtrack.train.loop import weights_are_finite
from jemtrack.train.phase import Phase
from jemtrack.train.state import TrainState


@dataclass
class CheckpointManager:
    """Save the state of a run to the checkpoints `kept`, and restore it in all processes.

    Only rank zero has trackers and something in `kept`.
    """

    kept: Checkpoints | MemoryCheckpoint | None
    state: TrainState
    phases: Sequence[Phase]
    callbacks: Sequence[Callback]
    trackers: Sequence[Tracker]

    def due(self) -> bool:
        """Tell whether the next checkpoint is due; always False except on rank zero."""
        return is_rank_zero() and self.kept is not None and self.kept.due(self.state.step)

    def newest(self) -> Any | None:
        """Load the newest checkpoint and broadcast it; return None if there is none."""
        return broadcast(self.kept.load() if self.kept and is_rank_zero() else None)

    def take(self, run_id: str) -> None:
        """Save the state, unless weights are not finite; all processes must call this."""
        if self.kept is None and world_size() == 1:
            return
        # A training that returned to weights that are not finite would diverge again at once.
        if not weights_are_finite(self.state):
            return
        state = self.state.state_dict(self.phases[self.state.position.phase])
        # Only the random state and the objective's state differ between processes.
        own = gather_to_rank_zero(
            {"random": state.pop("random"), "objective": state.pop("objective")}
        )
        if self.kept is None or not is_rank_zero():
            return
        tree = {
            "run_id": run_id,
            "state": state,
            "processes": own,
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "trackers": {
                name: tracker.state_dict() for name, tracker in _named(self.trackers).items()
            },
        }
        self.kept.save(tree, self.state.step)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore models, optimizers, random state, callbacks and all else, except trackers.

        Raises:
            InputError: if the world size differs from that of the checkpoint.
        """
        own = saved["processes"]
        if len(own) != world_size():
            raise InputError(
                f"the checkpoint was written by {len(own)} processes, and cannot be resumed by "
                f"{world_size()}: set `processes` to {len(own)}"
            )
        state = saved["state"] | own[rank()]
        self.state.load_state_dict(state, self.phases[state["position"][0]])
        for callback, callback_state in zip(self.callbacks, saved["callbacks"], strict=True):
            callback.load_state_dict(callback_state)

    def restore_trackers(self, saved: Mapping[str, Any]) -> None:
        """Restore those trackers that the run had when the checkpoint was written."""
        for name, tracker in _named(self.trackers).items():
            if name in saved["trackers"]:
                tracker.load_state_dict(saved["trackers"][name])


def _named(trackers: Sequence[Tracker]) -> dict[str, Tracker]:
    """Name each tracker by its class and number, so that others may be added or removed."""
    named: dict[str, Tracker] = {}
    for tracker in trackers:
        kind = type(tracker).__name__
        number = sum(type(other) is type(tracker) for other in named.values()) + 1
        named[f"{kind} {number}" if number > 1 else kind] = tracker
    return named
