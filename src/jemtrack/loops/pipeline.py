"""Training loops of one's own, announced to trackers and callbacks as the engine's own is."""

from __future__ import annotations

import functools
import inspect
import operator
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jemtrack.errors import InputError
from jemtrack.events.dispatcher import EventDispatcher
from jemtrack.events.events import (
    ArtifactSaved,
    Measured,
    PhaseEnd,
    PhaseStart,
    Position,
    RunStart,
    Status,
    new_session,
)
from jemtrack.events.handlers import Callback, EventHandler
from jemtrack.files import atomic_write
from jemtrack.shared.components import Component
from jemtrack.shared.interruption import Interruption
from jemtrack.shared.metrics import MetricValues
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.recipe import Divergence

if TYPE_CHECKING:  # what declares a pipeline does without torch
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from jemtrack.train.lifecycle import Lifecycle

Body = Callable[..., Any]


class Stopped(BaseException):
    """Ends a loop that continues though a callback asked the run or the phase to end."""


@dataclass
class _Progress:
    """What a loop has done: one that resumes, or is retried, runs from its start."""

    pipeline: Pipeline
    loops: list[list[int | None]] = field(default_factory=list)  # the first epoch, and the end
    next_loop: int = 0
    next_phase: int = 0
    phase: PhaseStart | None = None  # that has not ended
    epochs_before: int = 0  # those done before the phase

    def rewind(self) -> None:
        self.phase, self.next_loop, self.next_phase = None, 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"loops": [[*loop] for loop in self.loops], "own": self.pipeline.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loops = [[*loop] for loop in state["loops"]]
        self.pipeline.load_state_dict(state["own"])


class Pipeline(Component):
    """A training whose loop a subclass writes as `run`, and each epoch as `run_epoch(epoch)`.

    Both are wrapped where the class is made. The start and the end of the run are announced once
    on every way out; what is raised goes on. `run_epoch` goes: start, body, record of
    `epoch_metrics`, callbacks, clear; a mapping that it returns is added to the metrics. Epochs
    count from 0. `with self.epoch(n):`, or start_epoch and end_epoch, do the same by hand.

    A callback that wants the run or its phase to end makes `should_stop` true; a loop that does
    not look is ended where its next epoch would begin. Options that a subclass declares,
    `parameters` and the arguments of `run` are told to the trackers at the start. Callbacks
    see the `models` and have their files in `folder`. `n_phases`, and of the usual phase
    `n_epochs` and `n_batches`, are there for those who show how far a run is; 0: not known.
    """

    name: str = ""  # of the run; the class's where none is given
    parameters: Mapping[str, Any] = MappingProxyType({})
    trackers: Sequence[EventHandler] = ()
    callbacks: Sequence[Callback] = ()
    checkpoints: Checkpoints | None = None
    divergence: Divergence | None = None
    folder: Path = Path()
    n_phases: int = 1
    n_epochs: int = 0
    n_batches: int = 0
    _lifecycle: Lifecycle | None = None
    _progress: _Progress
    _in_run_epoch = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, announce in (("run", cls._announce_run), ("run_epoch", cls._announce_epoch)):
            body = getattr(cls, name)
            if inspect.iscoroutinefunction(body) or inspect.isgeneratorfunction(body):
                raise InputError(f"{cls.__name__}.{name} must be a function that runs to its end")
            # One that a mixin brings is wrapped too; one that was wrapped before is not.
            if not hasattr(body, "announces"):
                setattr(cls, name, _wrapped(body, announce))

    def run(self, *handed: Any, **named: Any) -> Any:
        """Train; here, `n_epochs` times `run_epoch` with what was handed in.

        Raises:
            InputError: when a metric is set that nobody declared.
        """
        for epoch in self.epochs(self.n_epochs):
            self.run_epoch(epoch, *handed, **named)

    def run_epoch(self, epoch: int, *handed: Any, **named: Any) -> Any:
        """Train the epoch number `epoch`, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} has no run_epoch")

    @functools.cached_property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizers by name, as far as checkpoints hold them."""
        return {}

    @functools.cached_property
    def schedulers(self) -> dict[str, LRScheduler]:
        """The learning rate schedulers by name, as far as checkpoints hold them."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside models, optimizers, schedulers: tensors, JSON."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    @functools.cached_property
    def models(self) -> dict[str, nn.Module]:
        """The models by name, as far as callbacks are to see them."""
        return {}

    def save_weights(self, path: Path, models: Mapping[str, nn.Module]) -> None:
        """Write the models for a callback: as safetensors, under `<model>.<weight>`."""
        from safetensors.torch import save

        weights = {
            f"{name}.{key}": weight.detach().clone()
            for name, model in models.items()
            for key, weight in model.state_dict().items()
        }
        path.write_bytes(save(weights))

    @property
    def status(self) -> Status | None:
        """How the last run ended; None before its end."""
        return self._lifecycle.dispatcher.status if self._lifecycle else None

    @property
    def epoch_metrics(self) -> MetricValues:
        """The metrics of the epoch that is open; a name that nobody declared is refused."""
        return self._last.epoch_metrics

    @property
    def run_metrics(self) -> MetricValues:
        """The metrics of the run, recorded at its end."""
        return self._last.run_metrics

    @property
    def should_stop(self) -> bool:
        """Whether a callback, or `stop`, wants the run or the phase to end."""
        return self._open.state.stopped

    def stop(self, reason: str) -> None:
        """Want the run to end as stopped, because of `reason`."""
        self._open.state.stop = reason

    def epochs(self, n_epochs: int) -> Iterator[int]:
        """Yield the numbers of the next epochs, at most `n_epochs`, until `should_stop`."""
        state, done = self._open.state, self._progress
        number = done.next_loop
        done.next_loop += 1
        if number == len(done.loops):
            done.loops.append([state.epochs, None])
        loop = done.loops[number]
        first, end = loop
        assert first is not None
        if end is not None:  # done before the run was resumed
            return
        try:
            for epoch in range(max(first, state.epochs), first + n_epochs):
                if state.stopped:
                    return
                yield epoch
        finally:
            loop[1] = state.epochs

    def batches(self, n_batches: int) -> Iterator[int]:
        """Yield the numbers of an epoch's batches, from 0; of an epoch that resumes, what is left.

        With `checkpoints`, the epoch can be resumed after any of these batches, each of which the
        loop announces by `with self.batch():`. What a batch holds must follow from the numbers
        of epoch and batch.
        """
        self._open.saves_batches = True
        yield from range(self._open.state.position.batch, n_batches)

    @contextmanager
    def phase(self, name: str, n_epochs: int = 0, n_batches: int = 0) -> Iterator[None]:
        """Announce a phase around epochs; where there is none, they are in the phase `train`.

        The phase before ends where this one begins. Where a callback wants the phase to end, the
        block ends with the epoch, and what comes after it is done.
        """
        life, begun = self._open, None
        if life.state.stop:
            raise Stopped
        try:
            begun = self._begin_phase(name, n_epochs, n_batches)
            yield
        except Stopped:
            self._end_phase(begun)
            if life.state.stop:
                raise
            return
        except BaseException as error:
            self._progress.phase = None
            life.break_off(error)
            raise
        self._end_phase(begun)

    def epoch(self, epoch: int) -> AbstractContextManager[MetricValues]:
        """Make the block the epoch of this number, as `run_epoch` is; yield its metrics."""
        return self._open.ending(lambda: self.start_epoch(epoch), self.end_epoch)

    def start_epoch(self, epoch: int) -> None:
        """Begin the epoch number `epoch`, counted from 0 through all phases.

        Raises:
            InputError: if an epoch has begun and not ended, or the epoch of that number was done.
        """
        life, number = self._open, operator.index(epoch)
        state = life.state
        if life.in_epoch:
            raise InputError(f"epoch {number} begins, but epoch {state.epochs} has not ended")
        if number < state.epochs:
            raise InputError(
                f"epoch {number} begins, but {state.epochs} epochs are done: the epochs of a run "
                "are counted through, and `for epoch in self.epochs(n)` counts them"
            )
        if state.stopped:
            raise Stopped
        if not self._progress.phase:
            self._begin_phase("train", self.n_epochs, self.n_batches)
        batch = state.position.batch if number == state.epochs else 0
        state.epochs = number
        within = number - self._progress.epochs_before
        state.position = replace(state.position, epoch=within, batch=batch)
        life.begin_epoch()

    def end_epoch(self) -> None:
        """End the epoch that has begun: record, callbacks, clear."""
        life = self._in_epoch("an epoch ends")
        life.saves_batches = False
        # A loop without batches takes one step an epoch, for what goes by steps.
        life.state.step += not life.state.position.batch
        life.end_epoch()

    def batch(self) -> AbstractContextManager[MetricValues]:
        """Announce a batch around the block, which sets its metrics."""
        return self._in_epoch("a batch begins").batch()

    def log_batch(self, metrics: Mapping[str, Any]) -> None:
        """Dispatch a batch that is done."""
        with self.batch() as values:
            values.update(metrics)

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Record metrics at once, apart from epochs and batches."""
        values = MetricValues()
        values.update(metrics)
        self._open.dispatch(Measured({**values}, self._open.state.step))

    def log_artifact(self, path: Path, kind: str) -> None:
        """Tell the trackers of a file of the run: `kind` is weights, ..."""
        self._open.dispatch(ArtifactSaved(path, kind))

    @property
    def _last(self) -> Lifecycle:
        if self._lifecycle is None:
            raise InputError(f"{type(self).__name__} is not running: run() begins a run")
        return self._lifecycle

    @property
    def _open(self) -> Lifecycle:
        if not (self._lifecycle and self._lifecycle.running):
            raise InputError(f"{type(self).__name__} is not running: run() begins a run")
        self._lifecycle.state.models = self.models
        return self._lifecycle

    def _in_epoch(self, what: str) -> Lifecycle:
        if not self._open.in_epoch:
            raise InputError(f"{what}, but {self._open.NO_EPOCH}")
        return self._open

    def _begin_phase(self, name: str, n_epochs: int, n_batches: int) -> PhaseStart | None:
        done, life = self._progress, self._open
        self._end_phase(done.phase)
        state, number = life.state, done.next_phase
        done.next_phase += 1
        if number < state.position.phase:  # done before the run was resumed
            return None
        if number > state.position.phase:
            state.position, state.stop_phase, state.seconds = Position(number), "", 0.0
        done.epochs_before = state.epochs - state.position.epoch
        n_phases = max(self.n_phases, done.next_phase)
        done.phase = PhaseStart(state.position, name, n_phases, n_epochs, n_batches)
        life.begin(done.phase)
        return done.phase

    def _end_phase(self, phase: PhaseStart | None) -> None:
        """End the phase, unless it has ended before."""
        done, life = self._progress, self._open
        if not phase or phase is not done.phase:
            return
        state = life.state
        if life.in_epoch:
            hint = "end_epoch() ends it"
            raise InputError(f"{phase.name} ends, but epoch {state.epochs} has not: {hint}")
        done.phase = None
        n_epochs = state.epochs - done.epochs_before
        # A callback may ask for the end of a phase in its last epoch, when it ends anyway.
        if n_epochs == phase.n_epochs:
            state.stop_phase = ""
        reason = state.stop or state.stop_phase or f"{n_epochs} epochs are done"
        status = Status.STOPPED if state.stopped else Status.SUCCESS
        life.finish(PhaseEnd(state.position, phase.name, reason, status))

    def _announce_run(self, body: Body, bound: inspect.BoundArguments) -> Any:
        """Make `body` a run, unless one has begun: `super().run()` announces nothing."""
        from jemtrack.train.checkpoint_manager import CheckpointManager
        from jemtrack.train.lifecycle import Lifecycle
        from jemtrack.train.state import TrainState

        if self._lifecycle and self._lifecycle.running:
            return body()
        state = TrainState(self.models, {**self.optimizers}, {**self.schedulers})
        done = self._progress = _Progress(self)
        dispatcher = EventDispatcher(self.trackers, self.callbacks, state)
        manager = CheckpointManager(
            self.checkpoints, state, self.callbacks, dispatcher.stateful, stateful=done
        )
        for callback in self.callbacks:
            callback.run_folder = self.folder
            callback.save_weights = functools.partial(atomic_write, write=self._save)
        # With checkpoints a signal waits for the next one.
        with Interruption(prompt=not self.checkpoints) as interruption:
            life = Lifecycle(dispatcher, manager, interruption, self.divergence)
            self._lifecycle, life.saves_batches = life, False
            loop = functools.partial(self._loop, interruption, body)
            return life.run(self._start(bound), loop, lambda: {**life.run_metrics})

    def _loop(self, interruption: Interruption, body: Body) -> Any:
        result = None
        self._progress.rewind()
        with suppress(Stopped), interruption.acting():
            result = body()
        self._end_phase(self._progress.phase)
        return result

    def _announce_epoch(self, body: Body, bound: inspect.BoundArguments) -> Any:
        """Make `body` an epoch, or a part of one that is open; the outermost gives the metrics."""
        if self._in_run_epoch:
            return body()
        if len(bound.args) < 2:
            raise InputError(f"{type(self).__name__}.run_epoch must take the number of the epoch")
        life = self._open
        with nullcontext() if life.in_epoch else self.epoch(bound.args[1]):
            self._in_run_epoch = True
            try:
                result = body()
            finally:
                self._in_run_epoch = False
            if isinstance(result, Mapping):
                life.epoch_metrics.update(result)
        return result

    def _save(self, path: Path) -> None:
        self.save_weights(path, self._last.state.served)

    def _start(self, bound: inspect.BoundArguments) -> RunStart:
        options = {option.name: getattr(self, option.name) for option in self.options()}
        chosen = {**options, **self.parameters, **_arguments(bound)}
        return RunStart(self.name or type(self).__name__, chosen, uuid.uuid4().hex, new_session())


def _wrapped(body: Body, announce: Callable[[Any, Body, inspect.BoundArguments], Any]) -> Body:
    """Return a method that calls `body` through `announce`."""
    signature = inspect.signature(body)

    @functools.wraps(body)
    def method(pipeline: Pipeline, *handed: Any, **named: Any) -> Any:
        bound = signature.bind(pipeline, *handed, **named)
        return announce(pipeline, functools.partial(body, pipeline, *handed, **named), bound)

    method.announces = True  # type: ignore[attr-defined]
    return method


def _arguments(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Give the named arguments of a method, defaults included."""
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in [*bound.arguments.items()][1:]:
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            found[name] = value
    return found
