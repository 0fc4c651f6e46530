"""A run: phases before listeners and callbacks, announced once, ended once, and resumed."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jemtrack.engine.audience import Audience
from jemtrack.engine.callbacks import Callback
from jemtrack.engine.checkpoint import Checkpoints, InMemory
from jemtrack.engine.events import (
    BatchEnd,
    Diverged,
    EpochEnd,
    Position,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.engine.interruption import Interruption
from jemtrack.engine.learning_rates import scale_learning_rates
from jemtrack.engine.listeners import Listener
from jemtrack.engine.loop import fit
from jemtrack.engine.phase import Models, Phase
from jemtrack.engine.random_state import turn_random_state
from jemtrack.engine.recipe import Divergence
from jemtrack.engine.state import TrainState
from jemtrack.errors import TrainingDivergedError

log = logging.getLogger("jemtrack")


@dataclass
class Run:
    """A training of `state` through `phases`.

    With `checkpoints`, it goes on from the newest one that is whole, and ends with the weights of
    a run that was never stopped, bit for bit on one device and number of threads. `divergence`
    says what happens when a loss or gradient is not finite or too large. `save_weights` writes
    models to a file, for callbacks.
    """

    name: str
    parameters: Mapping[str, Any]
    state: TrainState
    phases: Sequence[Phase]
    listeners: Sequence[Listener] = ()
    callbacks: Sequence[Callback] = ()
    checkpoints: Checkpoints | None = None
    divergence: Divergence = field(default_factory=Divergence)
    save_weights: Callable[[Path, Models], None] | None = None
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def train(self) -> dict[str, float]:
        """Train to the end; give the last epoch's metrics.

        Every way out announces the end of what has started once, closes the listeners and raises
        what was raised: the batch at hand is finished first where a signal asks for the end.

        Raises:
            TrainingDivergedError: before a loss that is not finite reaches the weights, when the
                run may not go back, or has gone back as often as it may.
            InputError: when an objective or a callback gives a metric that nobody declared.
            OSError: when a checkpoint cannot be written.
        """
        self._audience = Audience(self.listeners, self.callbacks, self.state)
        self._kept = self.checkpoints or (InMemory() if self.divergence.on == "retry" else None)
        if save := self.save_weights:
            for callback in self.callbacks:
                callback.save_weights = lambda path: save(path, self.state.served)
        status, reason = Status.FAILED, ""
        with Interruption() as interruption:
            try:
                self._resume()
                self._train(interruption)
                status = Status.STOPPED if self.state.stop else Status.SUCCESS
            except BaseException as error:
                reason = f"{type(error).__name__}: {error}"
                status = Status.FAILED if isinstance(error, Exception) else Status.ABORTED
                raise
            finally:
                self._audience.announce_ends(status, reason)
                self._audience.tell_listeners(RunEnd(status, self.state.latest))
                self._audience.close()
        return self.state.latest

    def _train(self, interruption: Interruption) -> None:
        self._audience.announce(self._start())
        if self.divergence.on == "retry" and not self.state.step:
            self._save(self._phase)
        while True:
            try:
                self._train_phases(interruption)
                return
            except TrainingDivergedError as error:
                self._go_back(error)

    def _train_phases(self, interruption: Interruption) -> None:
        first = self.state.position.phase
        for number, phase in enumerate(self.phases[first:], first):
            for event in fit(self.state, phase, len(self.phases)):
                self._audience.announce(event)
                if isinstance(event, BatchEnd | EpochEnd):
                    self._save_if_due(phase)
                    self._stop_if_asked(interruption, phase)
            if self.state.stop or number + 1 == len(self.phases):
                break
            self.state.position = Position(number + 1)
            self.state.enter(self.phases[number + 1])

    def _start(self) -> RunStart:
        session = time.strftime("%Y%m%d_%H%M%S") + f"_{uuid.uuid4().hex[:6]}"
        state = self.state
        return RunStart(
            self.name,
            self.parameters,
            self.run_id,
            session,
            state.position,
            state.epochs,
            state.step,
        )

    @property
    def _phase(self) -> Phase:
        return self.phases[self.state.position.phase]

    def _resume(self) -> None:
        """Enter the phase to go on in, from the newest checkpoint where there is one."""
        saved = self._kept.load() if self._kept else None
        if saved is None:
            self.state.enter(self._phase)
            return
        self.run_id = saved["run_id"]
        self._restore(saved)
        for listener in self.listeners:
            if type(listener).__name__ in saved["listeners"]:
                listener.load_state_dict(saved["listeners"][type(listener).__name__])
        position = self.state.position
        skipped = ", ".join(phase.name for phase in self.phases[: position.phase])
        log.info(
            f"{self.name} goes on at phase {self._phase.name} ({position.phase + 1}/"
            f"{len(self.phases)}), epoch {position.epoch + 1}, batch {position.batch + 1}"
            + (f"; done before: {skipped}" if skipped else "")
        )

    def _restore(self, saved: Mapping[str, Any]) -> None:
        number = saved["state"]["position"][0]
        self.state.load_state_dict(saved["state"], self.phases[number])
        for callback, state in zip(self.callbacks, saved["callbacks"], strict=True):
            callback.load_state_dict(state)

    def _go_back(self, error: TrainingDivergedError) -> None:
        """Go back to the last checkpoint with lower learning rates and other noise.

        Raises:
            TrainingDivergedError: when that must not be, or was done too often.
        """
        state, how = self.state, self.divergence
        saved = self._kept.load() if self._kept and how.on == "retry" else None
        if saved is None:
            raise error
        if state.retries >= how.max_retries:
            message = f"{error}; it went back {state.retries} times, as often as it may"
            raise TrainingDivergedError(message, error.losses) from error
        position, retries, scale = state.position, state.retries + 1, state.lr_scale * how.lr_factor
        self._audience.announce_ends(Status.FAILED, str(error))
        self._restore(saved)
        scale_learning_rates(state.optimizers, state.schedulers, scale / state.lr_scale)
        state.retries, state.lr_scale = retries, scale
        turn_random_state(retries)
        back_to, losses = state.position, error.losses
        self._audience.announce(
            Diverged(position, back_to, state.epochs, state.step, losses, retries, scale)
        )
        # A kill from here on does not give the run its chances back.
        self._save(self._phase)

    def _save_if_due(self, phase: Phase) -> None:
        if self._kept and self._kept.due(self.state.step):
            self._save(phase)

    def _stop_if_asked(self, interruption: Interruption, phase: Phase) -> None:
        try:
            interruption.check()
        except KeyboardInterrupt:
            if self.checkpoints:
                self._save(phase)
            raise

    def _save(self, phase: Phase) -> None:
        assert self._kept
        tree = {
            "run_id": self.run_id,
            "state": self.state.state_dict(phase),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "listeners": {type(each).__name__: each.state_dict() for each in self.listeners},
        }
        self._kept.save(tree, self.state.step)
