"""The stage EvaluateX."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import zntrack
from pydantic import Field
from torch import Tensor

from jemtrack.data.images import DataSplits, LabelledImages, load_outliers
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.models.evaluate import MEASURED, TRAIN, VALID, Statistics, evaluate
from jemtrack.evaluation.models.model_outputs import save_outputs
from jemtrack.evaluation.models.results import FOLDERS, write_metrics, write_tables
from jemtrack.jem.scores import run_models
from jemtrack.parameters import parameters
from jemtrack.project.params import PARAMS
from jemtrack.project.results import ResultTracking
from jemtrack.shared.hardware import (
    DEFAULT_THREADS,
    DeviceName,
    Threads,
    chosen_device,
    keep_freed_memory,
)
from jemtrack.shared.progress import say
from jemtrack.shared.random_streams import generator
from jemtrack.stages.stage import Stage, plot


@parameters
class EvalArgs:
    """The images that models are measured on, and the statistics.

    Attributes:
        split: the test, the training or the validation images of the data set.
        noise: add the noise that a model was trained with, the same for every model of equal
            `sigma`; or show the images as they are.
        images_per_pass: images in one forward pass; changes the speed and the memory alone.
        n_train_images: training images whose energies are set beside those of the others, and
            whose features the Mahalanobis score measures distances to.
        n_resamples: of the bootstrap.
        level: of confidence, of all intervals.
        device: auto is a GPU if there is one, else the CPU.
        threads: of the CPU; see `jemtrack.shared.hardware.Hardware`.
    """

    split: Literal["test", "train", "valid"] = "test"
    noise: bool = True
    images_per_pass: Annotated[int, Field(ge=1)] = 500
    n_train_images: Annotated[int, Field(ge=1)] = 1000
    n_resamples: Annotated[int, Field(ge=100)] = 1000
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    device: DeviceName = "auto"
    threads: Threads = DEFAULT_THREADS


class EvaluateX(Stage):
    """Measure trained models side by side: accuracy, calibration, outlier detection.

    Attributes:
        data: the file of prepared images.
        models: the trainers' model files; a trainer's folder is the model's name.
        outliers: files of images that the models have never seen, by PrepareOutliers.
        params: what to measure on.
        operation: what to measure, a dataclass called with logits and labels.
        metrics: a small file for each model, which DVC shows as a row.
        facts: what was measured on which images, and the MD5 of each model file.
        calibration: the rows of a reliability diagram, a file a model.
        energies: histograms of energies, a file a model.
        risk_coverage: risk over coverage, a file a model.
        roc: the ROC curves of each score against each kind of outliers, a file a model.
        tables: all measures with their intervals, all tests between models, and confusions.
        outputs: the outputs of each model for the images, for `jemtrack compare`.
    """

    data: Path = zntrack.deps_path()
    models: list[Path] = zntrack.deps_path()
    outliers: list[Path] = zntrack.deps_path(default_factory=list)
    params: EvalArgs = zntrack.deps(default_factory=EvalArgs)
    operation: Any = zntrack.deps(default_factory=CalibrationMeasures)
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics", cache=False)
    facts: Path = zntrack.outs_path(zntrack.nwd / "facts.json")
    calibration: Path = plot(
        zntrack.nwd / "calibration", x="confidence", y="accuracy", template="confidence"
    )
    energies: Path = plot(zntrack.nwd / "energies", x="energy", y="share", template="energies")
    risk_coverage: Path = plot(zntrack.nwd / "risk_coverage", x="coverage", y="risk")
    roc: Path = plot(
        zntrack.nwd / "roc", x="false_positive_rate", y="true_positive_rate", template="roc"
    )
    tables: Path = zntrack.outs_path(zntrack.nwd / "tables")
    outputs: Path = zntrack.outs_path(zntrack.nwd / "outputs.safetensors")

    def compute(self) -> None:
        """Run each model on all image sets, once; measure, compare and write the results."""
        keep_freed_memory()
        tracking = ResultTracking(self.name)
        params, data = self.params, DataSplits.load(self.data)
        images = chosen_images(self.name, params, data)
        train = _drawn(data, params.n_train_images)
        outliers = self._outliers()
        sets = {**outliers, MEASURED: images.images_NCHW, TRAIN: train.images_NCHW}
        labels = {MEASURED: images.labels_N}
        if len(data.valid) and params.split != "valid":
            sets[VALID], labels[VALID] = data.valid.images_NCHW, data.valid.labels_N
        outputs = run_models(
            self.models,
            sets,
            train,
            noise=params.noise,
            seed=data.seed,
            batch_size=params.images_per_pass,
            device=chosen_device(params.device),
        )
        say("Computing the measures, their intervals and the tests")
        results = evaluate(
            outputs,
            labels,
            split=params.split,
            measures=self.operation,
            statistics=Statistics(data.seed, params.n_resamples, params.level),
        )
        write_metrics(results.metrics, self.metrics)
        for name in FOLDERS:
            write_tables(getattr(results, name), getattr(self, name))
        measured = {model: of_sets[MEASURED] for model, of_sets in outputs.items()}
        save_outputs(measured, images.labels_N, self.outputs)
        self._write_facts(data.dataset, len(images), outliers)
        parameters = {"params": params, "operation": self.operation}
        tracking.send(parameters, results.metrics, [self.facts])

    def _outliers(self) -> dict[str, Tensor]:
        outliers: dict[str, Tensor] = {}
        for path in self.outliers:
            outliers |= load_outliers(path)
        return outliers

    def _write_facts(self, dataset: str, n_images: int, outliers: dict[str, Tensor]) -> None:
        facts = {
            "dataset": dataset,
            "split": self.params.split,
            "n_images": n_images,
            "noise": self.params.noise,
            "outliers": {name: len(images) for name, images in outliers.items()},
            "n_resamples": self.params.n_resamples,
            "level": self.params.level,
            "md5": {
                path.parent.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                for path in self.models
            },
        }
        self.facts.write_text(json.dumps(facts, indent=2) + "\n")


def chosen_images(stage: str, params: EvalArgs, data: DataSplits) -> LabelledImages:
    """Select the images that the parameters of `stage` name.

    Raises:
        InputError: when there are none.
    """
    images: LabelledImages = getattr(data, params.split)
    if len(images) == 0:
        raise InputError(
            f"{PARAMS}: {stage}.params.split must name images that there are, got "
            f"{params.split!r}: the data were prepared with n_valid 0"
        )
    return images


def _drawn(data: DataSplits, n_images: int) -> LabelledImages:
    """Draw training images, by the data's seed."""
    stream = generator(data.seed, "evaluated training images")
    return data.train[torch.randperm(len(data.train), generator=stream)[:n_images]]
