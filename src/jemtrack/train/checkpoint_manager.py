"""Save the state of a run to its checkpoints, and restore it, in all processes alike."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from jemtrack.errors import InputError
from jemtrack.events.handlers import Callback
from jemtrack.shared.random_streams import turn_random_state
from jemtrack.train.checkpoint import Checkpoints, MemoryCheckpoint
from jemtrack.train.distributed import (
    broadcast,
    gather_to_rank_zero,
    is_rank_zero,
    rank,
    world_size,
)
from jemtrack.train.phase import Phase
from jemtrack.train.state import TrainState, own_state, weights_are_finite

log = logging.getLogger("jemtrack")


@dataclass
class CheckpointManager:
    """Saves and restores a run; only rank zero has `kept` checkpoints and trackers, by name.

    The engine's runs have `phases`, whose objectives may have a state. A loop of one's own has a
    state in `stateful` instead.
    """

    kept: Checkpoints | MemoryCheckpoint | None
    state: TrainState
    callbacks: Sequence[Callback] = ()
    trackers: Mapping[str, Any] = field(default_factory=dict)
    phases: Sequence[Phase] = ()
    stateful: Any = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    run_id: str = ""  # once it is resumed or begun

    def prepare_retries(self) -> None:
        """Keep a checkpoint at least in memory, and the objectives' states for later phases."""
        self.kept = self.kept or MemoryCheckpoint()
        self._fresh = [copy.deepcopy(own_state(phase.objective)) for phase in self.phases]

    def due(self) -> bool:
        """Tell whether the next checkpoint is due."""
        return is_rank_zero() and self.kept is not None and self.kept.due(self.state.step)

    def newest(self) -> Any | None:
        """Load the newest checkpoint, or return None."""
        return broadcast(self.kept.load() if self.kept and is_rank_zero() else None)

    def save(self) -> None:
        """Save the state as it is now."""
        if self.kept is None and world_size() == 1:
            return
        # A run that returned to weights that are not finite would never get away from them.
        if not weights_are_finite(self.state):
            return
        state = self.state.state_dict(self._stateful)
        # Each process has its own; all else is the same in all of them.
        own = gather_to_rank_zero({name: state.pop(name) for name in ("random", "objective")})
        if self.kept is None or not is_rank_zero():
            return
        tree = {
            "run_id": self.run_id,
            "state": state,
            "processes": own,
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "trackers": {name: each.state_dict() for name, each in self.trackers.items()},
        }
        self.kept.save(tree, self.state.step)

    def resume(self, name: str, run_id: str) -> None:
        """Resume the run of that name from its newest checkpoint, if there is one."""
        saved, self.run_id = self.newest(), run_id
        if saved is None:
            if not is_rank_zero():
                turn_random_state(rank())
            return
        self.run_id = saved["run_id"]
        self.restore(saved)
        for kind, tracker in self.trackers.items():
            if kind in saved["trackers"]:
                tracker.load_state_dict(saved["trackers"][kind])
        position = self.state.position
        skipped = ", ".join(phase.name for phase in self.phases[: position.phase])
        phase = (
            f"phase {self._phase.name} ({position.phase + 1}/{len(self.phases)})"
            if self.phases
            else f"phase {position.phase + 1}"
        )
        log.info(
            f"{name} resumes at {phase}, epoch {position.epoch + 1}, batch {position.batch + 1}"
            + (f"; done before: {skipped}" if skipped else "")
        )

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore models, optimizers, random streams, callbacks and all else.

        Raises:
            InputError: if it was saved by another number of processes.
        """
        own = saved["processes"]
        if len(own) != world_size():
            raise InputError(
                f"the checkpoint was saved by {len(own)} processes, and cannot be resumed in "
                f"{world_size()}"
            )
        state = saved["state"] | own[rank()]
        if self.phases:
            self.state.enter(self.phases[state["position"][0]])
        # Its phase is known only now.
        self.state.load_state_dict(state, lambda: self._stateful)
        for callback, kept in zip(self.callbacks, saved["callbacks"], strict=True):
            callback.load_state_dict(kept)

    def restore_for_retry(self, saved: Mapping[str, Any]) -> None:
        """Restore a checkpoint, and let the objectives of later phases begin anew."""
        first = saved["state"]["position"][0] + 1
        for phase, state in zip(self.phases[first:], self._fresh[first:], strict=True):
            if state is not None:
                phase.objective.load_state_dict(copy.deepcopy(state))  # type: ignore[attr-defined]
        self.restore(saved)

    @property
    def _phase(self) -> Phase:
        return self.phases[self.state.position.phase]

    @property
    def _stateful(self) -> Any:
        """What has a state of its own beside models and optimizers."""
        return self._phase.objective if self.phases else self.stateful
