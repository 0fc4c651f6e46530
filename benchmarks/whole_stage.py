"""Both sides of a whole training on Fashion-MNIST: a trainer stage, and a plain script.

Each side starts from images in memory and ends with weights in a file. Each pair of trainings has
its own seed. Afterwards, the same function evaluates the models of both sides on the same images;
with a single pair, their accuracies differ by some hundredths by chance.
"""

import dataclasses
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.engine_steps import ordinary_training
from benchmarks.options import BenchOptions
from benchmarks.reference.images import AugmentedImages
from benchmarks.reference.steps import max_entropy_loss
from benchmarks.reference.trainer import PlainTrainer
from benchmarks.sides import Sides
from benchmarks.sizes import TINY, Size, plain_images
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.data.sources.fetch import fetch
from jemtrack.data.splits import prepare
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.inference import predict, validation_metrics
from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.jem.training.phases import initial_network, network_of, network_shape
from jemtrack.record.jsonl import JsonLines
from jemtrack.stages.train_args import TrainArgs
from jemtrack.trackers.console import default_trackers, run_log
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.launch import Runtime

SIZE = Size(depth=10, width=2, side=28, channels=1, batch_size=64)
EPOCHS = 2
N_VALID = 5000
SOME_IMAGES = 2048
LR = 1e-3


@dataclass
class WholeTrainings:
    """Train both sides from equal weights, and keep the trained models.

    The n-th training of a side has the seed of the data plus n - 1.
    """

    data: DataSplits
    params: TrainArgs
    size: Size
    runtime: Runtime
    trained: dict[str, list[JointEnergyModel]] = field(
        default_factory=lambda: {"reference": [], "jemtrack": []}
    )

    def reference(self) -> None:
        """Train with the plain script."""
        params, (data, start) = self.params, self._begun("reference")
        torch.manual_seed(data.seed)
        network = self.size.plain_network(start)
        valid = data.valid
        trainer = PlainTrainer(
            network,
            max_entropy_loss,
            plain_images(data.train, params.sigma, data.flip),
            AugmentedImages(valid.images_NCHW, valid.labels_N, params.sigma),
            params.batch_size,
            params.lr,
            self.runtime.device,
        )
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
            trainer.fit(params.n_epochs, Path(folder, "weights.pt"))
        start.load_state_dict(network.state_dict())
        self.trained["reference"].append(start)

    def ours(self) -> None:
        """Train like a trainer stage, with its record, history and checkpoints."""
        params, (data, _) = self.params, self._begun("jemtrack")
        objective = MaxEntropyL2Objective()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            # It draws the network that the reference has started from.
            training = ordinary_training(params, objective, data, self.runtime, folder)
            history = default_trackers(folder / "history.csv", params.print_every)
            trackers = [JsonLines(folder=str(folder / "record")), *history]
            with run_log(None, on_screen=not sys.stderr.isatty()):
                training.train(trackers, Checkpoints(folder / "checkpoints"))
            training.save(folder / "model.safetensors")
        self.trained["jemtrack"].append(network_of(training.state.served))

    def _begun(self, name: str) -> tuple[DataSplits, JointEnergyModel]:
        """Return the data and the initial network of a side's next training."""
        seed = self.data.seed + len(self.trained[name])
        data = dataclasses.replace(self.data, seed=seed)
        torch.manual_seed(seed)
        return data, initial_network(network_shape(self.params, data)).to(self.runtime.device)

    def note(self) -> str:
        """Format the accuracy and NLL of each side: mean and standard deviation over trainings."""
        sizes = f"{len(self.data.train)} training images, {self.params.n_epochs} epochs"
        learned = (f"{name} {self._learned(models)}" for name, models in self.trained.items())
        return "; ".join([f"{sizes}, on the test images", *learned])

    def _learned(self, models: list[JointEnergyModel]) -> str:
        images, sigma, seed = self.data.test, self.params.sigma, self.data.seed
        found = [
            validation_metrics(predict(model, images, sigma=sigma, seed=seed), images.labels_N)
            for model in models
        ]
        of_all = {name: [each[f"valid_{name}"] for each in found] for name in ("accuracy", "nll")}
        return f"accuracy {_spread(of_all['accuracy'])}, NLL {_spread(of_all['nll'])}"


def sides(runtime: Runtime, options: BenchOptions) -> Sides:
    """Train by maximum entropy on Fashion-MNIST, or on some of its images."""
    size = TINY if options.tiny else SIZE
    named = "stage" in options.rows
    params = size.params(options.epochs or (EPOCHS if named else 1), LR)
    some = options.images or (None if named else SOME_IMAGES)
    data = _random() if options.tiny else _fashion_mnist()
    both = WholeTrainings(_fewer(data, some), params, size, runtime)
    return Sides(both.reference, both.ours, both.note)


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4f}"
    return f"{mean} (+- {statistics.stdev(values):.4f})" if len(values) > 1 else mean


def _fashion_mnist() -> DataSplits:
    with tempfile.TemporaryDirectory() as root:
        # Not into the project's data/: a stage may depend on it.
        fetch("fashion-mnist", Path(root), _here())
        return prepare("fashion-mnist", Path(root), 10, N_VALID, seed=1)


def _here() -> Path | None:
    folder = Path("data/fashion-mnist")
    return folder if folder.exists() else None


def _random() -> DataSplits:
    data = TINY.random_data()
    return dataclasses.replace(data, valid=data.train, test=data.train)


def _fewer(data: DataSplits, n_images: int | None) -> DataSplits:
    """Keep `n_images` training images, whose order is random, and the same share of the others."""
    if n_images is None:
        return data
    share = min(1.0, n_images / len(data.train))

    def some(images: LabelledImages) -> LabelledImages:
        return images[torch.arange(max(1, round(share * len(images))))]

    return dataclasses.replace(data, train=some(data.train), valid=some(data.valid))
