"""The stage Deploy."""

import sys
from pathlib import Path

import zntrack
from torch import Tensor

from jemtrack.data.images import DataSplits, load_outliers
from jemtrack.deploy.args import DeployArgs
from jemtrack.errors import InputError
from jemtrack.evaluation.models.results import write_metrics
from jemtrack.project.results import ResultTracking
from jemtrack.shared.progress import say
from jemtrack.stages.stage import Stage


class Deploy(Stage):
    """Export a trained model as a bundle that answers without PyTorch and without jemtrack.

    Attributes:
        data: the file of prepared images.
        model: the trainer's model file.
        outliers: files of images that the model has never seen, by PrepareOutliers.
        tables: those of EvaluateX, whose figures the model card shows.
        params: what the bundle promises.
        bundle: the models, their description and card, and `predict.py`, which runs them.
        metrics: a small file for each model of the bundle, with its figures on the test images and
            the largest difference of a probability to PyTorch.
    """

    data: Path = zntrack.deps_path()
    model: Path = zntrack.deps_path()
    outliers: list[Path] = zntrack.deps_path(default_factory=list)
    tables: list[Path] = zntrack.deps_path(default_factory=list)
    params: DeployArgs = zntrack.deps(default_factory=DeployArgs)
    bundle: Path = zntrack.outs_path(zntrack.nwd / "bundle", metadata={"artifact": "model"})
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics", cache=False)

    def compute(self) -> None:
        """Export the model, fit and check the exports, and write the bundle."""
        try:
            from jemtrack.deploy.bundle import Exported, Material, model_name, write_bundle
            from jemtrack.deploy.card import evaluation_section
        except ModuleNotFoundError as error:
            install = "pip install 'jemtrack[deploy]'"
            raise InputError(f"this needs {error.name}, not installed here: {install}") from error
        tracking = ResultTracking(self.name)
        outliers: dict[str, Tensor] = {}
        for path in self.outliers:
            outliers |= load_outliers(path)
        name = model_name(self.model)
        evaluation = "\n\n".join(evaluation_section(name, tables) for tables in self.tables)
        data = DataSplits.load(self.data)
        material = Material(self.model, data, outliers, self.params, evaluation)
        say("Exporting the model")
        exported = Exported.of(material)
        say("Fitting and checking its bundle")
        description = write_bundle(exported, material, self.bundle)
        if description["refused"]:
            print(description["refused"], file=sys.stderr)
        metrics = {
            file: {**about["figures"], "largest_difference": about["differences"]["probabilities"]}
            for file, about in description["models"].items()
        }
        write_metrics(metrics, self.metrics)
        card = self.bundle / "card.md"
        tracking.send({"params": self.params}, metrics, [card])
