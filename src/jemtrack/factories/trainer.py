"""A trainer of a model that exists, over the engine that `jemtrack train` and the stages use."""

import hashlib
import inspect
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from jemtrack.data.images import DataSplits
from jemtrack.errors import InputError
from jemtrack.events.handlers import Callback
from jemtrack.factories.callbacks import LearningRateScheduler
from jemtrack.factories.configuration import Config, Configuration, configured
from jemtrack.factories.model import ConfiguredModel, labelled_images
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.training.family import JemFamily
from jemtrack.jem.training.options import NETWORK
from jemtrack.project.provenance import Determinants, recipe_determinants
from jemtrack.project.runtime import checkpoint_seconds
from jemtrack.project.scratch import locked, remove_old
from jemtrack.recipe.prepare import recipe_trackers
from jemtrack.shared.plain import plain
from jemtrack.trackers.console import run_log
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.family import ModelMaker
from jemtrack.train.launch import Runtime, launch
from jemtrack.train.recipe import Recipe
from jemtrack.train.run import Training

RUNS = Path("runs")
_MODEL = "model.safetensors"


class _OfModel(JemFamily):
    """The family, whose network is one that exists."""

    def __init__(self, model: ConfiguredModel) -> None:
        self._model = model

    def networks(self, *_: Any) -> dict[str, ModelMaker]:
        """Return what hands out the model, and draws from the random stream as a new one does."""

        def existing() -> nn.Module:
            build_model(self._model.shape)
            return self._model

        return {NETWORK: existing}


class Trainer:
    """Trains a model in place; see `create_trainer`."""

    def __init__(
        self,
        model: ConfiguredModel,
        configuration: Configuration,
        callbacks: Sequence[Callback],
        folder: Path,
    ) -> None:
        self.model, self.configuration = model, configuration
        self.callbacks, self.folder = callbacks, folder
        self._start: dict[str, Tensor] = {}  # the weights before a training that has not ended

    def fit(
        self, train_data: Any = None, val_data: Any = None, epochs: int | None = None
    ) -> dict[str, float]:
        """Train the model; return the metrics of the last epoch.

        After an interruption or a kill, the same call resumes from the checkpoint that was left in
        `.jemtrack`, also in another process, and ends with the same weights. The folder gets
        model.safetensors, history.csv and the record.

        Args:
            train_data: the images to train on, as for `create_dataloader`; those of the
                configuration by default.
            val_data: the same for the images to validate on.
            epochs: instead of those of the recipe, which must have one step.

        Raises:
            InputError: if an argument does not fit.
            TrainingDivergedError: if a loss or gradient is not finite or too large.
            KeyboardInterrupt: if a signal asked for the end; a checkpoint was saved.
        """
        settings = self.configuration.file.training
        if settings.processes > 1:
            raise InputError("training.processes must be 1 here: `jemtrack train` starts several")
        data, recipe = self._data(train_data, val_data), self._recipe(epochs)
        if self._start:
            self.model.load_state_dict(self._start)
        self._start = {name: each.clone() for name, each in self.model.state_dict().items()}
        device = next(self.model.parameters()).device
        try:
            metrics = launch(settings, self._train, recipe, data, self._inputs(recipe, data))
        finally:
            self.model.to(device)  # a GPU is where it trains, not where its caller left it
        self._start = {}
        return metrics

    def _data(self, train_data: Any, val_data: Any) -> DataSplits:
        data = self.configuration.data
        given = {"train": train_data, "valid": val_data}
        parts: dict[str, Any] = {
            name: labelled_images(each, self.configuration)
            for name, each in given.items()
            if each is not None
        }
        return replace(data, **parts)

    def _recipe(self, epochs: int | None) -> Recipe:
        recipe = self.configuration.file.recipe
        if epochs is None:
            return recipe
        if len(recipe.steps) > 1 or epochs < 1:
            raise InputError(
                f"epochs must be >= 1, and left out for a recipe of several steps, got {epochs} "
                f"for {len(recipe.steps)}"
            )
        return replace(recipe, steps=(replace(recipe.steps[0], n_epochs=epochs),))

    def _inputs(self, recipe: Recipe, data: DataSplits) -> Determinants:
        file, images = self.configuration.file, hashlib.sha256()
        for part in (data.train, data.valid):
            images.update(part.images_NCHW.numpy().tobytes() + part.labels_N.numpy().tobytes())
        weights = {name: each.cpu().contiguous() for name, each in self._start.items()}
        parameters = {
            "model": self.model.shape,
            "training": file.training,
            "recipe": recipe.as_mapping(),
            "callbacks": [_chosen(each) for each in self.callbacks],
            "weights": hashlib.sha256(save(weights)).hexdigest(),
            "images": images.hexdigest(),
            "data": file.data,
            "out": str(self.folder.resolve()),
        }
        return recipe_determinants(self.folder.name, plain(parameters), recipe, ())

    def _train(
        self, runtime: Runtime, recipe: Recipe, data: DataSplits, inputs: Determinants
    ) -> dict[str, float]:
        file = self.configuration.file
        training = Training(
            name=self.folder.name,
            family=_OfModel(self.model),
            recipe=recipe,
            model=file.model,
            settings=file.training,
            data=data,
            runtime=runtime,
            parameters={"model": self.model.shape, "training": file.training, "data": file.data},
            notes=self.configuration.notes,
            folder=self.folder,
            callbacks=self.callbacks,
        )
        with locked(inputs.folder), run_log(None, on_screen=not sys.stderr.isatty()):
            inputs.write()
            remove_old(inputs.stage, inputs.folder.parent)
            checkpoints = Checkpoints(inputs.folder, every_seconds=checkpoint_seconds())
            trackers = recipe_trackers(file, self.folder)
            metrics = training.train(trackers, checkpoints, self.folder / _MODEL)
        # An average of the weights, if the recipe keeps one.
        self.model.load_state_dict(training.state.served[NETWORK].state_dict())
        self.model.eval()
        return metrics


def create_trainer(
    model: ConfiguredModel,
    config: Config | None = None,
    *,
    optimizer: Optimizer | None = None,
    callbacks: Sequence[Callback | LearningRateScheduler] = (),
    folder: str | Path | None = None,
) -> Trainer:
    """Create the trainer of a model of `create_model`; `fit` trains it in place.

    Args:
        model: that is trained.
        config: how, see `create_model`; the model's own by default.
        optimizer: of PyTorch, on the model's weights: each step of the recipe is trained by one of
            its class and options, instead of the recipe's.
        callbacks: beside those of the recipe. A `LearningRateScheduler` is the schedule of each
            step.
        folder: of the results; `runs/` and the name of the recipe file by default.

    Raises:
        InputError: if an argument does not fit.
    """
    if not isinstance(model, ConfiguredModel):
        raise InputError(f"model must be one of create_model, got {type(model).__name__}")
    configuration = model.configuration if config is None else configured(config)
    handlers, changed = list[Callback](), dict[str, dict[str, Any]]()
    if optimizer is not None:
        changed["optimizers"] = _described(optimizer, model)
    for each in callbacks:
        if isinstance(each, LearningRateScheduler):
            changed["schedulers"] = each.chosen
        else:
            handlers.append(each)
    if changed:
        configuration = configuration.with_optimization(**changed)
    out = Path(folder) if folder else RUNS / configuration.file.path.stem
    return Trainer(model, configuration, handlers, out)


def _chosen(callback: Callback) -> dict[str, Any]:
    cls = type(callback)
    chosen = {option.name: getattr(callback, option.name) for option in cls.options()}
    return {"type": f"{cls.__module__}.{cls.__qualname__}", **chosen}


def _described(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """Describe an optimizer as a recipe does.

    Raises:
        InputError: if it is not one of all the model's weights with one set of options.
    """
    groups = optimizer.param_groups
    if len(groups) > 1 or {*map(id, groups[0]["params"])} != {*map(id, model.parameters())}:
        raise InputError("optimizer must be of all weights of the model, in one group")
    cls = type(optimizer)
    names = inspect.signature(cls).parameters
    options = {name: plain(value) for name, value in groups[0].items() if name in names}
    del options["params"]
    return {"type": f"{cls.__module__}.{cls.__qualname__}", **options}
