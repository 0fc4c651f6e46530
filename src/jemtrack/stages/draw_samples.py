"""The stage DrawSamples."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import zntrack
from pydantic import Field
from torch import Tensor

from jemtrack.data.images import DataSplits
from jemtrack.evaluation.measures.feature_distance import squared_mmd
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.inference import noisy_batches, trunk_features
from jemtrack.jem.networks.model_file import load_model, trained_noise
from jemtrack.jem.sampling.chain_starts import GaussianStarts, UniformStarts, check_each_class
from jemtrack.jem.sampling.generation import class_samples
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.parameters import parameters
from jemtrack.project.results import ResultTracking
from jemtrack.shared.hardware import (
    DEFAULT_THREADS,
    DeviceName,
    Threads,
    check_memory,
    chosen_device,
    keep_freed_memory,
)
from jemtrack.shared.pictures import grid, write_picture
from jemtrack.shared.progress import track
from jemtrack.shared.random_streams import generator
from jemtrack.stages.stage import Stage, plot

_AT_ONCE = 500  # images in one forward pass
_SCALE = 4  # screen pixels a pixel
_SMALLEST = 1e-3  # standard deviation of a feature: one that no test image has counts for little


@parameters
class SampleArgs:
    """The Langevin chains to run.

    Attributes:
        n_per_class: chains of each class.
        start: uniform noise in [-1, 1], or class_gaussians: draws from a Gaussian that has the
            mean and covariance of the class's training images.
        device: auto is a GPU if there is one, else the CPU.
        threads: of the CPU; see `jemtrack.shared.hardware.Hardware`.
    """

    n_per_class: Annotated[int, Field(ge=1)] = 10
    start: Literal["uniform", "class_gaussians"] = "uniform"
    device: DeviceName = "auto"
    threads: Threads = DEFAULT_THREADS


class DrawSamples(Stage):
    """Draw images of each class from models, by Langevin chains.

    Attributes:
        data: the file of prepared images.
        models: the trainers' model files; a trainer's folder is the model's name.
        features: the model file of a classifier that judges the samples: how often it predicts
            their class, and how far its features, each in units of its standard deviation over
            the test images, are from those of test images.
        params: which chains.
        sampler: how a chain goes.
        metrics: an object for each model; an output in DVC's cache, for as a DVC metric it would
            add a column for each model and measure.
        grids: an image a model, with a row a class.
        energies: the energies along the chains, a file a model.
    """

    data: Path = zntrack.deps_path()
    models: list[Path] = zntrack.deps_path()
    features: Path = zntrack.deps_path()
    params: SampleArgs = zntrack.deps(default_factory=SampleArgs)
    sampler: LangevinSampler = zntrack.deps(
        default_factory=lambda: LangevinSampler(n_steps=200, pixel_clamp=True)
    )
    metrics: Path = zntrack.outs_path(zntrack.nwd / "metrics.json")
    grids: Path = plot(zntrack.nwd / "grids")
    energies: Path = plot(zntrack.nwd / "energies", x="step", y="energy")

    def compute(self) -> None:
        """Run each model's chains from the same starts, and measure where they end."""
        keep_freed_memory()
        tracking = ResultTracking(self.name)
        data = DataSplits.load(self.data)
        check_samples(data, self.params)
        labels_N = torch.arange(data.n_classes).repeat_interleave(self.params.n_per_class)
        start_NCHW = self._starts(data, labels_N)
        device = chosen_device(self.params.device)
        judge, _, notes = load_model(self.features)
        judge.to(device)
        seen = noisy_batches(data.test.images_NCHW, trained_noise(self.features, notes), data.seed)
        test_NF = trunk_features(judge, seen)
        scale_F = test_NF.std(dim=0).clamp_min(_SMALLEST)
        self.grids.mkdir(parents=True, exist_ok=True)
        self.energies.mkdir(parents=True, exist_ok=True)
        metrics = {}
        for path in track(self.models, "Sampling from the models"):
            model, name = load_model(path)[0].to(device), path.parent.name
            drawn = class_samples(model, self.sampler, labels_N, start_NCHW, data.seed)
            drawn.energies.to_csv(self.energies / f"{name}.csv", index=False)
            rows = grid(drawn.pixels(), self.params.n_per_class)
            write_picture(self.grids / f"{name}.png", rows, _SCALE)
            features_NF = trunk_features(judge, torch.split(drawn.images_NCHW, _AT_ONCE))
            predicted_N = _predicted(judge, features_NF)
            metrics[name] = {
                "feature_distance": squared_mmd(features_NF / scale_F, test_NF / scale_F),
                "recognised": float((predicted_N == labels_N).double().mean()),
                "energy": float(drawn.energies["energy"].iloc[-1]),
            }
        self.metrics.write_text(json.dumps(metrics, indent=2) + "\n")
        parameters = {"params": self.params, "sampler": self.sampler}
        tracking.send(parameters, metrics, [self.metrics, *sorted(self.grids.iterdir())])

    def _starts(self, data: DataSplits, labels_N: Tensor) -> Tensor:
        stream = generator(data.seed, "starts of samples")
        if self.params.start == "uniform":
            starts: Any = UniformStarts(data.train.images_NCHW.shape[1:])
        else:
            starts = GaussianStarts(data.train, data.n_classes)
        drawn: Tensor = starts(labels_N, stream)
        return drawn


def check_samples(data: DataSplits, params: SampleArgs) -> None:
    """Check that the chains can be in memory, and that there are classes to start from.

    Raises:
        ParameterError: if they cannot.
    """
    n_bytes = 4 * params.n_per_class * data.n_classes * data.train.images_NCHW.shape[1:].numel()
    check_memory("n_per_class", params.n_per_class, n_bytes)
    if params.start == "class_gaussians":
        check_each_class(data.train, data.n_classes)


@torch.inference_mode()
def _predicted(judge: JointEnergyModel, features_NF: Tensor) -> Tensor:
    """Classify images by their features, (N,), on the CPU."""
    device = next(judge.parameters()).device
    logits_NC: Tensor = judge.class_head(features_NF.to(device))
    return logits_NC.argmax(dim=1).cpu()
