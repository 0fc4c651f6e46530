"""A run: phases before trackers and callbacks, announced once, ended once, and resumed."""

import copy
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jemtrack.errors import Interrupted, TrainingDivergedError
from jemtrack.files import atomic_write
from jemtrack.train.checkpoint import Checkpoints, MemoryCheckpoint
from jemtrack.train.checkpoint_manager import CheckpointManager
from jemtrack.train.dispatcher import EventDispatcher
from jemtrack.train.distributed import (
    all_reduce_max,
    broadcast,
    is_rank_zero,
    rank,
    synchronize_batch_norms,
    world_size,
)
from jemtrack.train.events import (
    BatchEnd,
    Diverged,
    EpochEnd,
    PhaseEnd,
    Position,
    RunStart,
    Status,
    new_session,
)
from jemtrack.train.handlers import Callback, Tracker
from jemtrack.train.interruption import Interruption
from jemtrack.train.launch import Runtime
from jemtrack.train.loop import fit
from jemtrack.train.optimizers import scale_learning_rates
from jemtrack.train.phase import Models, Phase
from jemtrack.train.random_streams import turn_random_state
from jemtrack.train.recipe import Divergence
from jemtrack.train.state import TrainState, objective_state

log = logging.getLogger("jemtrack")


@dataclass
class Run:
    """A training of `state` through `phases`.

    With `checkpoints`, it goes on from the newest one that is whole, and ends with the weights of
    a run that was never stopped, bit for bit on one device and number of threads. `divergence`
    says what happens when a loss or gradient is not finite or too large. Callbacks have their
    files in `folder`; `save_weights` writes models to one of them. `place` says on which device
    the models are.

    Where several processes train together, each has a `Run` like this one: the first alone has
    checkpoints and trackers, and the others need none.
    """

    name: str
    parameters: Mapping[str, Any]
    state: TrainState
    phases: Sequence[Phase]
    trackers: Sequence[Tracker] = ()
    callbacks: Sequence[Callback] = ()
    checkpoints: Checkpoints | None = None
    divergence: Divergence = field(default_factory=Divergence)
    save_weights: Callable[[Path, Models], None] | None = None
    folder: Path = Path()
    place: Runtime = field(default_factory=lambda: Runtime(torch.device("cpu")))
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def train(self) -> dict[str, float]:
        """Train to the end; give the run's metrics: the last epoch's, unless a callback says other.

        Every way out announces the end of what has started once, closes the trackers and raises
        what was raised: the batch at hand is finished first where a signal asks for the end.

        Raises:
            TrainingDivergedError: before a loss that is not finite reaches the weights, when the
                run may not go back, or has gone back as often as it may.
            InputError: when an objective or a callback gives a metric that nobody declared.
            OSError: when a checkpoint cannot be written.
        """
        trackers = self.trackers if is_rank_zero() else ()
        self._audience = EventDispatcher(trackers, self.callbacks, self.state)
        kept = self.checkpoints or (
            MemoryCheckpoint() if self.divergence.action == "retry" else None
        )
        self._snapshots = CheckpointManager(kept, self.state, self.phases, self.callbacks, trackers)
        for callback in self.callbacks:
            callback.run_folder = self.folder
            if self.save_weights:
                callback.save_weights = self._save_weights
        if self.divergence.action == "retry":
            self._fresh = [copy.deepcopy(objective_state(phase)) for phase in self.phases]
        with Interruption() as interruption, self._audience.ending_once(lambda: self.state.latest):
            synchronize_batch_norms(self.state.models, self.place.device)
            self._resume()
            self._train(interruption)
        return self.state.latest

    def _train(self, interruption: Interruption) -> None:
        self._audience.dispatch(self._start())
        if self.divergence.action == "retry" and not self.state.step:
            self._snapshots.take(self.run_id)
        while True:
            try:
                self._train_phases(interruption)
                return
            except TrainingDivergedError as error:
                self._go_back(error)

    def _train_phases(self, interruption: Interruption) -> None:
        first = self.state.position.phase
        for number, phase in enumerate(self.phases[first:], first):
            for event in fit(self.state, phase, len(self.phases), self.place.autocast):
                if isinstance(event, PhaseEnd) and self._is_last(number):
                    # Whoever goes on from here has nothing left to train.
                    self._snapshots.take(self.run_id)
                self._audience.dispatch(event)
                if isinstance(event, EpochEnd):
                    self._agree()
                if isinstance(event, BatchEnd | EpochEnd):
                    self._save_or_stop(interruption)
            if self._is_last(number):
                break
            self.state.position = Position(number + 1)
            self.state.enter(self.phases[number + 1])

    def _is_last(self, phase: int) -> bool:
        return bool(self.state.stop) or phase + 1 == len(self.phases)

    def _start(self) -> RunStart:
        state = self.state
        return RunStart(
            self.name,
            self.parameters,
            self.run_id,
            new_session(),
            state.position,
            state.epochs,
            state.step,
        )

    @property
    def _phase(self) -> Phase:
        return self.phases[self.state.position.phase]

    def _resume(self) -> None:
        """Enter the phase to go on in, from the newest checkpoint where there is one."""
        saved = self._snapshots.newest()
        if saved is None:
            self.state.enter(self._phase)
            if not is_rank_zero():
                turn_random_state(rank())
            return
        self.run_id = saved["run_id"]
        self._snapshots.restore(saved)
        self._snapshots.restore_trackers(saved)
        position = self.state.position
        skipped = ", ".join(phase.name for phase in self.phases[: position.phase])
        log.info(
            f"{self.name} goes on at phase {self._phase.name} ({position.phase + 1}/"
            f"{len(self.phases)}), epoch {position.epoch + 1}, batch {position.batch + 1}"
            + (f"; done before: {skipped}" if skipped else "")
        )

    def _go_back(self, error: TrainingDivergedError) -> None:
        """Go back to the last checkpoint with lower learning rates and other noise.

        Raises:
            TrainingDivergedError: when that must not be, or was done too often.
        """
        state, how = self.state, self.divergence
        saved = self._snapshots.newest() if how.action == "retry" else None
        if saved is None:
            raise error
        if state.retries >= how.max_retries:
            message = f"{error}; it went back {state.retries} times, as often as it may"
            raise TrainingDivergedError(message, error.losses) from error
        position, retries, scale = state.position, state.retries + 1, state.lr_scale * how.lr_factor
        self._audience.dispatch_ends(Status.FAILED, str(error))
        self._refresh_objectives(saved["state"]["position"][0] + 1)
        self._snapshots.restore(saved)
        scale_learning_rates(state.optimizers, state.schedulers, scale / state.lr_scale)
        state.retries, state.lr_scale = retries, scale
        turn_random_state(retries * world_size() + rank())
        back_to, losses = state.position, error.losses
        self._audience.dispatch(
            Diverged(position, back_to, state.epochs, state.step, losses, retries, scale)
        )
        # A kill from here on does not give the run its chances back.
        self._snapshots.take(self.run_id)

    def _refresh_objectives(self, first: int) -> None:
        """Let the objectives of the phases from `first` on forget that these have begun."""
        for phase, state in zip(self.phases[first:], self._fresh[first:], strict=True):
            if state is not None:
                phase.objective.load_state_dict(copy.deepcopy(state))  # type: ignore[attr-defined]

    def _agree(self) -> None:
        """Have all processes do what the first one's callbacks want."""
        wishes = broadcast((self.state.stop, self.state.stop_phase))
        self.state.stop, self.state.stop_phase = wishes

    def _save_or_stop(self, interruption: Interruption) -> None:
        """Save where it is due, stop where a signal asks for it: all processes after one batch."""
        due = self._snapshots.due()
        wish = all_reduce_max(interruption.number or int(due), self.place.device)
        if wish:
            self._snapshots.take(self.run_id)
        if wish > 1:
            raise Interrupted(wish)

    def _save_weights(self, path: Path) -> None:
        """Write the served models for a callback; the file is never seen half written."""
        save = self.save_weights
        assert save
        if is_rank_zero():
            atomic_write(path, lambda unfinished: save(unfinished, self.state.served))
