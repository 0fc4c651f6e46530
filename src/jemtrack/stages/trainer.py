"""The trainer that all training methods share."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zntrack

from jemtrack.data.images import DataSplits
from jemtrack.errors import InputError, ParameterError
from jemtrack.project.params import PARAMS
from jemtrack.project.provenance import Determinants
from jemtrack.project.runtime import checkpoint_seconds, runtime_trackers
from jemtrack.project.scratch import persistent_output, resumable, tracked_folder
from jemtrack.record.jsonl import JsonLines
from jemtrack.shared.metrics import Metric
from jemtrack.stages.stage import Stage, plot
from jemtrack.stages.train_args import (
    TrainArgs,
    extra_checkpoints,
    recipe_modules,
    recipe_problems,
    trainer_recipe,
)
from jemtrack.stages.trainer_checks import check_trainers
from jemtrack.trackers.console import default_trackers, run_log
from jemtrack.train.distributed import is_rank_zero
from jemtrack.train.launch import PickleByFactory, Runtime, launch
from jemtrack.train.run import Training

_COMPARED = (Metric.VALID_ACCURACY, Metric.VALID_NLL)  # what models are compared by in `metrics`


class Trainer(Stage):
    """Trains a model of `params`' family by an objective; a subclass says which is the usual one.

    Attributes:
        data: the file of prepared images.
        params: how to train.
        objective: what to minimise, a dataclass that is an `jemtrack.train.phase.Objective`.
        recipe: `defaults`, `steps`, `divergence` and `callbacks` of the training, or the path of a
            recipe file; without steps it is the ordinary training by `params` and `objective`.
        model: the trained model.
        metrics: accuracy and NLL of the trained model on the validation images; without these,
            the training loss. All else is in `history` and `record`: DVC's table stays narrow.
        history: the losses and the validation of each epoch.
        record: all that happened, in JSON lines with times; its last line has the trained model's
            metrics. Nothing depends on it.
    """

    data: Path = zntrack.deps_path()
    params: TrainArgs = zntrack.deps(default_factory=TrainArgs)
    objective: Any = zntrack.deps()
    recipe: dict[str, Any] | str = zntrack.params(default_factory=dict)
    model: Path = zntrack.outs_path(
        zntrack.nwd / "model.safetensors", metadata={"artifact": "model"}
    )
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics.json", cache=False)
    history: Path = plot(
        zntrack.nwd / "history.csv", x="epoch", y=["train_loss", "valid_nll", "valid_accuracy"]
    )
    record: Path = zntrack.outs_path(zntrack.nwd / "record")

    def compute(self) -> None:
        """Train on the prepared images; write the model and what it does."""
        data = DataSplits.load(self.data)
        check_trainers(self.name, data)
        handed = PickleByFactory((self, data), _with_data, type(self), self.name)
        launch(self.params, _compute, handed, self.inputs)

    def train(self, data: DataSplits, runtime: Runtime, inputs: Determinants | None = None) -> None:
        """Train in this process; the first of several writes the results.

        Checkpoints are kept by `inputs`, on which the result depends; without, there are none.
        """
        digest = inputs.contents.get(str(self.data), "") if inputs else ""
        training = self.training(data, runtime, digest)
        if not is_rank_zero():
            training.train((), None)
            return
        log_file = self.run_folder / "train.log" if self.params.print_to_log else None
        with (
            run_log(log_file, on_screen=not sys.stderr.isatty()),
            resumable(inputs, checkpoint_seconds()) as checkpoints,
            persistent_output(self.record, checkpoints) as record,
        ):
            trackers = [
                JsonLines(folder=str(record)),
                *default_trackers(self.history, self.params.print_every),
                *runtime_trackers(tracked_folder(self.run_folder, checkpoints)),
            ]
            metrics = training.train(trackers, checkpoints, self.model)
            shown = [name for name in _COMPARED if name in metrics] or [Metric.TRAIN_LOSS]
            main = {name: metrics.get(name) for name in shown}
            self.metrics.write_text(json.dumps(main, indent=2) + "\n")

    def training(self, data: DataSplits, runtime: Runtime, digest: str = "") -> Training:
        """Make the training on these images; the network is drawn from their seed.

        `digest` is that of the file of images, for the trackers.

        Raises:
            InputError: with a line for each problem of the recipe.
        """
        where = f"{PARAMS}: {self.name}.recipe"
        recipe = trainer_recipe(self.recipe, self.params, self.objective, where)
        try:
            return Training(
                name=f"{self.params.experiment}/{self.name}",
                family=self.params.family,
                recipe=recipe,
                model=self.params,
                settings=self.params,
                data=data,
                runtime=runtime,
                parameters={
                    "data": {"dataset": data.dataset, "digest": digest, "seed": data.seed},
                    "params": self.params,
                    "objective": self.objective,
                    "recipe": self.recipe,
                    "training": recipe.as_mapping(),
                },
                notes={"trainer": self.name, "dataset": data.dataset},
                folder=self.run_folder,
                objective=self.objective,
                start=Path(self.params.load_path) if self.params.load_path else None,
                callbacks=extra_checkpoints(self.params.ckpt_every),
            )
        except ParameterError as error:
            raise InputError(f"{PARAMS}: {self.name}: {error}") from error

    @property
    def run_folder(self) -> Path:
        """Where logs and extra checkpoints go."""
        return Path(self.params.save_dir) / self.params.experiment / self.name

    @classmethod
    def parameter_problems(cls, where: str, objects: Mapping[str, Any]) -> list[str]:
        """List what is wrong with the recipe, a line a problem."""
        # Where the parameters have problems themselves, the defaults of their class serve.
        usual = cls.__dataclass_fields__["params"].default_factory
        params = objects.get("params") or (usual() if callable(usual) else TrainArgs())
        objective = objects.get("objective")
        return recipe_problems(objects.get("recipe"), params, objective, f"{where}.recipe")

    @classmethod
    def code_modules(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Name the modules of what the recipe and `params` name by class."""
        return recipe_modules(parameters.get("recipe"), parameters["params"])

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Name the model that training starts from, and the recipe's file."""
        given = parameters["params"].get("load_path"), parameters.get("recipe")
        return [path for path in given if path and isinstance(path, str)]


def _with_data(cls: type[Trainer], name: str) -> tuple[Trainer, DataSplits]:
    """Read a trainer from the project's files, as ZnTrack does, and its images."""
    trainer = cls.from_rev(name=name)
    return trainer, DataSplits.load(trainer.data)


def _compute(
    runtime: Runtime,
    handed: PickleByFactory[tuple[Trainer, DataSplits]],
    inputs: Determinants | None,
) -> None:
    trainer, data = handed.value
    trainer.train(data, runtime, inputs)
