"""A run: phases that are trained one after another, of a family's models by a recipe or of any."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jemtrack.events.dispatcher import EventDispatcher
from jemtrack.events.events import MODEL, ArtifactSaved, Position, RunStart, new_session
from jemtrack.events.handlers import Callback, EventHandler, build_callback
from jemtrack.files import atomic_write
from jemtrack.shared.components import CALLBACK, load_components
from jemtrack.shared.interruption import Interruption
from jemtrack.shared.random_streams import stream_seed
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.checkpoint_manager import CheckpointManager
from jemtrack.train.distributed import is_rank_zero, synchronize_batch_norms
from jemtrack.train.family import Family, ModelMaker
from jemtrack.train.launch import Runtime
from jemtrack.train.lifecycle import Lifecycle
from jemtrack.train.loop import fit
from jemtrack.train.phase import Models, Phase
from jemtrack.train.recipe import Divergence, Recipe
from jemtrack.train.state import TrainState


@dataclass
class Run:
    """A training of `state` through `phases`.

    With `checkpoints` it resumes from the newest one that is whole, and ends with the weights of
    a run that was never stopped, bit for bit on one device and number of threads. `divergence`
    says what happens if a loss or gradient is not finite or too large. Callbacks have their files
    in `folder`; `save_weights` writes models to one of them. `runtime` is the device of the
    models and the precision. `final_metrics` measures the trained models, beside the last epoch;
    `save_weights` writes them to `model_file`, if there is one.

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
    final_metrics: Callable[[], dict[str, float]] = dict
    model_file: Path | None = None

    def train(self) -> dict[str, float]:
        """Train to the end; return the last epoch's metrics, or a callback's, and the final ones.

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
        self.state.enter(self.phases[0])
        trackers = self.trackers if is_rank_zero() else ()
        dispatcher = EventDispatcher(trackers, self.callbacks, self.state)
        checkpoints = CheckpointManager(
            self.checkpoints,
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
                self._finish(life)
                return
            state.position = Position(following)
            state.enter(self.phases[following])

    def _finish(self, life: Lifecycle) -> None:
        if is_rank_zero():
            self.state.latest = {**self.state.latest, **self.final_metrics()}
        if self.model_file:
            self._save_weights(self.model_file)
            life.dispatch(ArtifactSaved(self.model_file, MODEL))

    def _save_weights(self, path: Path) -> None:
        """Write the models; the file is never seen half written."""
        save = self.save_weights
        assert save
        if is_rank_zero():
            atomic_write(path, lambda unfinished: save(unfinished, self.state.served))


def initial_models(makers: Mapping[str, ModelMaker], seed: int) -> dict[str, nn.Module]:
    """Make the models, each from a random stream of its own: one more changes no other.

    The first one's stream is the global one from `seed` on, which the training then continues.
    """
    first, *others = makers
    models: dict[str, nn.Module] = {}
    for name in others:
        torch.manual_seed(stream_seed(seed, "model", name))
        models[name] = makers[name]()
    torch.manual_seed(seed)
    return {first: makers[first](), **models}


@dataclass
class Training:
    """A training of a family's models by a recipe.

    `model` and `settings` are the family's parameters, as in `Family`; `data` is what is trained
    on, and its `seed` draws all that is random. `parameters` are told to the trackers, `notes` are
    written into the models' files, `folder` is for the files of callbacks. The family's callbacks
    come before `callbacks`, and the recipe's after them. Training starts from the file `start`, or
    from fresh models.

    Raises:
        InputError: if an objective or a parameter does not fit.
    """

    name: str
    family: Family
    recipe: Recipe
    model: Any
    settings: Any
    data: Any
    runtime: Runtime
    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()
    objective: Any = None
    start: Path | None = None
    callbacks: Sequence[Callback] = ()
    phases: Sequence[Phase] = field(init=False)
    state: TrainState = field(init=False)

    def __post_init__(self) -> None:
        device, max_loss = self.runtime.device, self.recipe.divergence.max_loss
        chosen = self.recipe, self.settings, self.data, device, self.objective
        parts = zip(self.recipe.steps, self.family.parts(*chosen), strict=True)
        self.phases = [Phase(step, *of_step, max_loss) for step, of_step in parts]
        makers = self.family.networks(self.recipe, self.model, self.data, self.start)
        models = initial_models(makers, self.data.seed)
        self.state = TrainState({name: model.to(device) for name, model in models.items()})
        # What an optimizer of the user's own does not take shows now, not in its step's turn.
        for phase in self.phases[1:]:
            TrainState(self.state.models).enter(phase)

    def train(
        self,
        trackers: Sequence[EventHandler],
        checkpoints: Checkpoints | None,
        model_file: Path | None = None,
    ) -> dict[str, float]:
        """Train to the end; return the last epoch's metrics and the family's final ones.

        The trained models, of averages where there are some, are written to `model_file`.

        Raises:
            TrainingDivergedError: when a loss or gradient is not finite or too large.
            InputError: when a callback's options do not fit.
        """
        if self.recipe.callbacks:
            load_components(CALLBACK)
        chosen = [build_callback(each) for each in self.recipe.callbacks]
        return Run(
            name=self.name,
            parameters=self.parameters,
            state=self.state,
            phases=self.phases,
            trackers=trackers,
            callbacks=[*self.family.callbacks(self), *self.callbacks, *chosen],
            checkpoints=checkpoints,
            divergence=self.recipe.divergence,
            save_weights=self._save,
            folder=self.folder,
            runtime=self.runtime,
            final_metrics=self._final_metrics,
            model_file=model_file,
        ).train()

    def save(self, path: Path) -> None:
        """Write the trained models, of averages where there are some."""
        self._save(path, self.state.served)

    def _final_metrics(self) -> dict[str, float]:
        """Measure the trained models, of averages where there are some."""
        return self.family.final_metrics(self.state.served, self.settings, self.data)

    def _save(self, path: Path, models: Models) -> None:
        self.family.save(path, models, self)
