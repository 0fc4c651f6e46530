"""Both sides of a whole training on Fashion-MNIST: what a trainer stage does, and a plain script.

Each side starts from images in memory and ends with weights in a file. What either one has
learned is measured afterwards, by the same function on the same images.
"""

import copy
import dataclasses
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.engine_steps import ordinary_recipe
from benchmarks.options import BenchOptions
from benchmarks.reference.images import AugmentedImages
from benchmarks.reference.steps import max_entropy_loss
from benchmarks.reference.trainer import PlainTrainer
from benchmarks.sides import Sides
from benchmarks.sizes import TINY, Size, plain_images
from jemtrack.data.fetch import fetch
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.data.prepare import prepare
from jemtrack.engine.checkpoint import Checkpoints
from jemtrack.engine.launch import Place
from jemtrack.jem.energy_model import JointEnergyModel
from jemtrack.jem.inference import predict, validation_metrics
from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.jem.training import Training
from jemtrack.jem.training_phases import initial_network, network_shape, training_phases
from jemtrack.stages.train_args import TrainArgs
from jemtrack.trackers.jsonl import JsonLines
from jemtrack.trackers.run_log import run_log
from jemtrack.trackers.usual import usual_listeners

SIZE = Size(depth=10, width=2, side=28, channels=1, batch_size=64)
EPOCHS = 2
N_VALID = 5000
SOME_IMAGES = 2048
LR = 1e-3


@dataclass
class WholeTrainings:
    """Trains both, from equal weights, and remembers what came of it."""

    data: DataSplits
    params: TrainArgs
    size: Size
    place: Place
    trained: dict[str, JointEnergyModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(self.data.seed)
        shape = network_shape(self.params, self.data)
        self.start = initial_network(shape, None, self.place.device)

    def reference(self) -> None:
        """Train as a plain script does."""
        data, params = self.data, self.params
        torch.manual_seed(data.seed)
        network = self.size.plain_network(self.start)
        valid = data.valid
        trainer = PlainTrainer(
            network,
            max_entropy_loss,
            plain_images(data.train, params.sigma, data.flip),
            AugmentedImages(valid.images_NCHW, valid.labels_N, params.sigma),
            params.batch_size,
            params.lr,
            self.place.device,
        )
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
            trainer.fit(params.n_epochs, Path(folder, "weights.pt"))
        learned = copy.deepcopy(self.start)
        learned.load_state_dict(network.state_dict())
        self.trained["reference"] = learned

    def ours(self) -> None:
        """Train as a trainer stage does, with its record, history and checkpoints."""
        objective = MaxEntropyL2Objective()
        recipe = ordinary_recipe(self.params, objective)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            training = Training(
                name="benchmark",
                network=copy.deepcopy(self.start),
                shape=network_shape(self.params, self.data),
                recipe=recipe,
                phases=training_phases(
                    recipe, [objective], self.params, self.data, self.place.device
                ),
                notes={},
                parameters={},
                folder=folder,
                place=self.place,
            )
            history = usual_listeners(folder / "history.csv", self.params.print_every)
            listeners = [JsonLines(folder=str(folder / "record")), *history]
            with run_log(None, on_screen=not sys.stderr.isatty()):
                training.train(listeners, Checkpoints(folder / "checkpoints"))
            training.save(folder / "model.safetensors")
        self.trained["jemtrack"] = training.served

    def note(self) -> str:
        """Say what each has learned."""
        sizes = f"{len(self.data.train)} training images, {self.params.n_epochs} epochs"
        return "; ".join([sizes, *(f"{name} {self._learned(name)}" for name in self.trained)])

    def _learned(self, name: str) -> str:
        found = {}
        for part in ("valid", "test"):
            images = getattr(self.data, part)
            sigma, seed = self.params.sigma, self.data.seed
            said = predict(self.trained[name], images, sigma=sigma, seed=seed)
            found[part] = validation_metrics(said, images.labels_N)
        accuracies = " / ".join(f"{found[part]['valid_accuracy']:.4f}" for part in found)
        nll = " / ".join(f"{found[part]['valid_nll']:.4f}" for part in found)
        return f"accuracy {accuracies}, NLL {nll} (validation / test)"


def sides(place: Place, options: BenchOptions) -> Sides:
    """Train by maximum entropy on Fashion-MNIST, or on some of its images."""
    size = TINY if options.tiny else SIZE
    named = "stage" in options.rows
    params = size.params(options.epochs or (EPOCHS if named else 1), LR)
    some = options.images or (None if named else SOME_IMAGES)
    data = _random() if options.tiny else _fashion_mnist()
    both = WholeTrainings(_fewer(data, some), params, size, place)
    return Sides(both.reference, both.ours, both.note)


def _fashion_mnist() -> DataSplits:
    with tempfile.TemporaryDirectory() as root:
        # The project's own folder of data is left alone: a stage may depend on it.
        fetch("fashion-mnist", Path(root), _here())
        return prepare("fashion-mnist", Path(root), 10, N_VALID, seed=1)


def _here() -> Path | None:
    folder = Path("data/fashion-mnist")
    return folder if folder.exists() else None


def _random() -> DataSplits:
    data = TINY.random_data()
    return dataclasses.replace(data, valid=data.train, test=data.train)


def _fewer(data: DataSplits, n_images: int | None) -> DataSplits:
    """Keep so many training images, which were drawn by chance, and as large a share of others."""
    if n_images is None:
        return data
    share = min(1.0, n_images / len(data.train))

    def some(images: LabelledImages) -> LabelledImages:
        return images[torch.arange(max(1, round(share * len(images))))]

    return dataclasses.replace(data, train=some(data.train), valid=some(data.valid))
