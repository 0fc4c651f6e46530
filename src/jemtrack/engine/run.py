"""A run: phases before listeners and callbacks, announced once, ended once, and resumed."""

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from jemtrack.engine.callbacks import Callback
from jemtrack.engine.checkpoint import Checkpoints
from jemtrack.engine.events import (
    BatchEnd,
    EpochEnd,
    Event,
    Position,
    RunEnd,
    RunStart,
    Status,
)
from jemtrack.engine.interruption import Interruption
from jemtrack.engine.listeners import Listener
from jemtrack.engine.loop import fit
from jemtrack.engine.metrics import check_metrics
from jemtrack.engine.phase import Phase
from jemtrack.engine.scopes import Scopes
from jemtrack.engine.state import TrainState

log = logging.getLogger("jemtrack")


@dataclass
class Run:
    """A training of `state` through `phases`.

    With `checkpoints`, it goes on from the newest one that is whole, and ends with the weights of
    a run that was never stopped, bit for bit on one device and number of threads.
    """

    name: str
    parameters: Mapping[str, Any]
    state: TrainState
    phases: Sequence[Phase]
    listeners: Sequence[Listener] = ()
    callbacks: Sequence[Callback] = ()
    checkpoints: Checkpoints | None = None
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def train(self) -> dict[str, float]:
        """Train to the end; give the last epoch's metrics.

        Every way out announces the end of what has started once, closes the listeners and raises
        what was raised: the batch at hand is finished first where a signal asks for the end.

        Raises:
            TrainingDivergedError: before a loss that is not finite reaches the weights.
            InputError: when an objective or a callback gives a metric that nobody declared.
            OSError: when a checkpoint cannot be written.
        """
        self._scopes, self._warned = Scopes(), set[int]()
        status = Status.FAILED
        reason = ""
        with ExitStack() as closing, Interruption() as interruption:
            for listener in self.listeners:
                closing.callback(self._close, listener)
            try:
                self._resume()
                self._train(interruption)
                status = Status.STOPPED if self.state.stop else Status.SUCCESS
            except BaseException as error:
                reason = f"{type(error).__name__}: {error}"
                status = Status.FAILED if isinstance(error, Exception) else Status.ABORTED
                raise
            finally:
                for event in self._scopes.close(self.state, status, reason):
                    self._tell_listeners(event)
                self._tell_listeners(RunEnd(status, self.state.latest))
        return self.state.latest

    def announce(self, event: Event) -> None:
        """Tell the listeners, then the callbacks."""
        self._scopes.follow(event)
        if isinstance(event, EpochEnd):
            check_metrics(event.metrics)
        self._tell_listeners(event)
        for callback in self.callbacks:
            callback(event, self.state)

    def _train(self, interruption: Interruption) -> None:
        self.announce(self._start())
        first = self.state.position.phase
        for number, phase in enumerate(self.phases[first:], first):
            for event in fit(self.state, phase, len(self.phases)):
                self.announce(event)
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

    def _resume(self) -> None:
        """Enter the phase to go on in, from the newest checkpoint where there is one."""
        saved = self.checkpoints.load() if self.checkpoints else None
        if saved is None:
            self.state.enter(self.phases[self.state.position.phase])
            return
        self.run_id = saved["run_id"]
        number = saved["state"]["position"][0]
        self.state.load_state_dict(saved["state"], self.phases[number])
        for holder, state in zip(self.callbacks, saved["callbacks"], strict=True):
            holder.load_state_dict(state)
        for listener in self.listeners:
            if type(listener).__name__ in saved["listeners"]:
                listener.load_state_dict(saved["listeners"][type(listener).__name__])
        position = self.state.position
        skipped = ", ".join(phase.name for phase in self.phases[:number])
        log.info(
            f"{self.name} goes on at phase {self.phases[number].name} ({number + 1}/"
            f"{len(self.phases)}), epoch {position.epoch + 1}, batch {position.batch + 1}"
            + (f"; done before: {skipped}" if skipped else "")
        )

    def _save_if_due(self, phase: Phase) -> None:
        if self.checkpoints and self.checkpoints.due(self.state.step):
            self._save(phase)

    def _stop_if_asked(self, interruption: Interruption, phase: Phase) -> None:
        try:
            interruption.check()
        except KeyboardInterrupt:
            if self.checkpoints:
                self._save(phase)
            raise

    def _save(self, phase: Phase) -> None:
        assert self.checkpoints
        tree = {
            "run_id": self.run_id,
            "state": self.state.state_dict(phase),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "listeners": {type(each).__name__: each.state_dict() for each in self.listeners},
        }
        self.checkpoints.save(tree, self.state.step)

    def _tell_listeners(self, event: Event) -> None:
        for listener in self.listeners:
            try:
                listener(event)
            except Exception as error:
                self._warn(listener, error)

    def _close(self, listener: Listener) -> None:
        try:
            listener.close()
        except Exception as error:
            self._warn(listener, error)

    def _warn(self, listener: Listener, error: Exception) -> None:
        """Say once what a listener's trouble is; training goes on."""
        if id(listener) not in self._warned:
            self._warned.add(id(listener))
            name = type(listener).__name__
            log.warning(f"{name} failed and may lack a part of the run: {error!r}")
