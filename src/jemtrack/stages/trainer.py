"""The trainer that all training methods share."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import zntrack

from jemtrack.data.images import DataSplits
from jemtrack.engine.listeners import Listener
from jemtrack.engine.run import Run
from jemtrack.engine.state import TrainState
from jemtrack.jem.chain_density import chain_log_density
from jemtrack.jem.langevin import LangevinSampler
from jemtrack.jem.model_file import save_model
from jemtrack.stages.scratch import kept_checkpoints
from jemtrack.stages.stage import Stage, plot
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.trainer_checks import check_trainers
from jemtrack.stages.training import initial_network, network_shape, ordinary_phase
from jemtrack.trackers.console import Lines, ProgressBar
from jemtrack.trackers.history import HistoryCsv
from jemtrack.trackers.run_log import run_log
from jemtrack.trackers.weights import PeriodicWeights


class Trainer(Stage):
    """Trains a joint energy model by an objective; a subclass says which is the usual one.

    Attributes:
        data: the file of prepared images.
        params: how to train.
        objective: what to minimise, a dataclass that is an `engine.phase.Objective`.
        model: the trained model.
        metrics: the last epoch's losses, and what the model does on validation images.
        history: the same for each epoch.
    """

    data: Path = zntrack.deps_path()
    params: TrainArgs = zntrack.deps(default_factory=TrainArgs)
    objective: Any = zntrack.deps()
    model: Path = zntrack.outs_path(zntrack.nwd / "model.safetensors")
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics.json", cache=False)
    history: Path = plot(
        zntrack.nwd / "history.csv", x="epoch", y=["train_loss", "valid_nll"], y_label="loss"
    )

    def compute(self) -> None:
        """Train on the prepared images; write the model and what it does."""
        data = DataSplits.load(self.data)
        check_trainers(self.name, data)
        # Initialisation and dropout draw from the global stream; all else has a stream of its own.
        torch.manual_seed(data.seed)
        shape = network_shape(self.params, data)
        network = initial_network(self.params, shape)
        notes = {"trainer": self.name, "dataset": data.dataset, "sigma": str(self.params.sigma)}

        def save(path: Path) -> None:
            save_model(path, network, shape, notes)

        chosen = {"params": self.params, "objective": self.objective}
        log_file = self.run_folder / "train.log" if self.params.print_to_log else None
        with (
            run_log(log_file, on_screen=not sys.stderr.isatty()),
            kept_checkpoints(self.name, chosen) as checkpoints,
        ):
            training = Run(
                name=f"{self.params.experiment}/{self.name}",
                parameters=chosen,
                state=TrainState({"network": network}),
                phases=[ordinary_phase(self.params, self.objective, data)],
                listeners=self._listeners(save),
                checkpoints=checkpoints,
            )
            metrics = training.train()
            if self.params.n_steps:
                sampler = LangevinSampler(n_steps=self.params.n_steps)
                image_shape = data.train.images_NCHW.shape[1:]
                density = chain_log_density(network, sampler, image_shape, data.seed)
                metrics["chain_log_density"] = density
            save(self.model)
            self.metrics.write_text(json.dumps(metrics, indent=2) + "\n")

    @property
    def run_folder(self) -> Path:
        """Where logs and extra checkpoints go."""
        return Path(self.params.save_dir) / self.params.experiment / self.name

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Name the model that training starts from."""
        load_path = parameters["params"].get("load_path")
        return [load_path] if load_path else []

    def _listeners(self, save: Any) -> list[Listener]:
        listeners: list[Listener] = [
            HistoryCsv(path=str(self.history)),
            Lines(print_every=self.params.print_every),
        ]
        if sys.stderr.isatty():
            listeners.append(ProgressBar())
        if self.params.ckpt_every:
            listeners.append(PeriodicWeights(save, self.run_folder, self.params.ckpt_every))
        return listeners
