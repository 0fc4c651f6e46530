"""A run: phases that are trained one after another, announced, saved and resumed."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from jemtrack.files import atomic_write
from jemtrack.train.checkpoint import Checkpoints, MemoryCheckpoint
from jemtrack.train.checkpoint_manager import CheckpointManager
from jemtrack.train.dispatcher import EventDispatcher
from jemtrack.train.distributed import is_rank_zero, synchronize_batch_norms
from jemtrack.train.events import Position, RunStart, new_session
from jemtrack.train.handlers import Callback, EventHandler
from jemtrack.train.interruption import Interruption
from jemtrack.train.launch import Runtime
from jemtrack.train.lifecycle import Lifecycle
from jemtrack.train.loop import fit
from jemtrack.train.phase import Models, Phase
from jemtrack.train.recipe import Divergence
from jemtrack.train.state import TrainState


@dataclass
class Run:
    """A training of `state` through `phases`.

    With `checkpoints` it resumes from the newest one that is whole, and ends with the weights of
    a run that was never stopped, bit for bit on one device and number of threads. `divergence`
    says what happens if a loss or gradient is not finite or too large. Callbacks have their files
    in `folder`; `save_weights` writes models to one of them. `runtime` is the device of the
    models and the precision.

    If several processes train together, each has a `Run` like this one; only that of rank zero
    needs checkpoints and trackers.
    """

    name: str
    parameters: Mapping[str, Any]
    state: TrainState
    phases: Sequence[Phase]
    trackers: Sequence[EventHandler] = ()
    callbacks: Sequence[Callback] = ()
    checkpoints: Checkpoints | None = None
    divergence: Divergence = field(default_factory=Divergence)
    save_weights: Callable[[Path, Models], None] | None = None
    folder: Path = Path()
    runtime: Runtime = field(default_factory=lambda: Runtime(torch.device("cpu")))
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def train(self) -> dict[str, float]:
        """Train to the end; return the last epoch's metrics, unless a callback changes them.

        On every way out, the end of each part that began is announced once, the trackers are
        closed, and what was raised is raised. If a signal asks for the end, the batch is finished
        first.

        Raises:
            TrainingDivergedError: before a loss that is not finite reaches the weights, if the
                run may not be retried, or was retried as often as it may be.
            InputError: if an objective or a callback returns a metric that nobody declared.
            OSError: if a checkpoint cannot be written.
        """
        synchronize_batch_norms(self.state.models, self.runtime.device)
        trackers = self.trackers if is_rank_zero() else ()
        dispatcher = EventDispatcher(trackers, self.callbacks, self.state)
        retries = self.divergence.action == "retry"
        checkpoints = CheckpointManager(
            self.checkpoints or (MemoryCheckpoint() if retries else None),
            self.state,
            self.callbacks,
            dispatcher.stateful,
            phases=self.phases,
            device=self.runtime.device,
        )
        for callback in self.callbacks:
            callback.run_folder = self.folder
            if self.save_weights:
                callback.save_weights = self._save_weights
        start = RunStart(self.name, self.parameters, self.run_id, new_session())
        with Interruption() as interruption:
            life = Lifecycle(dispatcher, checkpoints, interruption, self.divergence)
            life.n_phases = len(self.phases)
            life.run(start, partial(self._train_phases, life), lambda: self.state.latest)
        return self.state.latest

    def _train_phases(self, life: Lifecycle) -> None:
        state = self.state
        while True:
            fit(life, self.phases[state.position.phase], self.runtime.autocast)
            following = state.position.phase + 1
            if state.stop or following == len(self.phases):
                return
            state.position = Position(following)
            state.enter(self.phases[following])

    def _save_weights(self, path: Path) -> None:
        """Write the models for a callback; the file is never seen half written."""
        save = self.save_weights
        assert save
        if is_rank_zero():
            atomic_write(path, lambda unfinished: save(unfinished, self.state.served))
