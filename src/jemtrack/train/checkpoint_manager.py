"""Save the state of a run to its checkpoints, and restore it, in all processes alike."""

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
    """Takes a run's state to `kept`, and brings it back, in all processes alike.

    The first process alone has something in `kept`, and trackers.
    """

    kept: Checkpoints | MemoryCheckpoint | None
    state: TrainState
    phases: Sequence[Phase]
    callbacks: Sequence[Callback]
    trackers: Sequence[Tracker]

    def due(self) -> bool:
        """Say whether it is time for the next one."""
        return is_rank_zero() and self.kept is not None and self.kept.due(self.state.step)

    def newest(self) -> Any | None:
        """Give the last one, or None."""
        return broadcast(self.kept.load() if self.kept and is_rank_zero() else None)

    def take(self, run_id: str) -> None:
        """Keep the state as it is now."""
        if self.kept is None and world_size() == 1:
            return
        # Who went back to weights that are not finite would never get away from them.
        if not weights_are_finite(self.state):
            return
        state = self.state.state_dict(self.phases[self.state.position.phase])
        # These are each process's own; all else is the same in all.
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
        """Put models, optimizers, random streams, callbacks and all else back.

        Raises:
            InputError: when it is of another number of processes.
        """
        own = saved["processes"]
        if len(own) != world_size():
            raise InputError(
                f"the checkpoint is of {len(own)} processes, and cannot go on in {world_size()}"
            )
        state = saved["state"] | own[rank()]
        self.state.load_state_dict(state, self.phases[state["position"][0]])
        for callback, kept in zip(self.callbacks, saved["callbacks"], strict=True):
            callback.load_state_dict(kept)

    def restore_trackers(self, saved: Mapping[str, Any]) -> None:
        """Put those trackers back that were there when the state was kept."""
        for name, tracker in _named(self.trackers).items():
            if name in saved["trackers"]:
                tracker.load_state_dict(saved["trackers"][name])


def _named(trackers: Sequence[Tracker]) -> dict[str, Tracker]:
    """Name each tracker so that others may come after it, or go, before the run goes on."""
    named: dict[str, Tracker] = {}
    for tracker in trackers:
        kind = type(tracker).__name__
        number = sum(type(other) is type(tracker) for other in named.values()) + 1
        named[f"{kind} {number}" if number > 1 else kind] = tracker
    return named
